"""Whether the fast wide LSTM learns as well: best validation losses over seeds, on real features.

Ours (one product for all inputs, bfloat16 where the CPU has it) beside Keras' own layer in float32,
with the same split, batch, learning rate, start weights and number of epochs.

    python -m benchmarks.losses [--store STORE] [--seeds 5] [--epochs 5] [--units 4096] [--batch 0]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.alternating import save

if TYPE_CHECKING:
    from pipeline.heads.clips import Clips

WAYS = {"ours": "ours", "keras": "Keras' layer, float32"}
LR = 1e-4
"""The wide LSTM's own rate in the zoo."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", default="")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--units", type=int, default=4096)
    parser.add_argument("--batch", type=int, default=0, help="clips; 0: as training chooses")
    arguments = parser.parse_args()
    losses = all_losses(arguments)
    sizes = {name: getattr(arguments, name) for name in ("units", "batch", "epochs", "seeds")}
    figures = sizes | {"losses": losses} | judged(losses["ours"], losses["keras"])
    save("losses", figures)
    print(shown(figures))


def shown(figures: dict[str, Any]) -> str:
    """Every seed's best loss, and how far the means are apart."""
    lines = [
        f"an LSTM of {figures['units']}, {figures['epochs']} epochs, {figures['seeds']} seeds",
        "",
        "| way | best validation loss over the seeds | mean |",
        "| --- | --- | ---: |",
    ]
    for way, text in WAYS.items():
        losses = figures["losses"][way]
        listed = " ".join(f"{loss:.4f}" for loss in losses)
        lines.append(f"| {text} | {listed} | {statistics.mean(losses):.4f} |")
    lines += [
        "",
        f"the means differ by {figures['difference']:+.4f}: {figures['in_standard_errors']:.2f} "
        f"standard errors ({figures['standard_error']:.4f})",
    ]
    return "\n".join(lines)


def judged(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """The difference of two means and its standard error, the seeds taken as independent draws."""
    difference = statistics.mean(ours) - statistics.mean(theirs)
    error = float(np.sqrt(sum(statistics.variance(x) / len(x) for x in (ours, theirs))))
    return {
        "difference": difference,
        "standard_error": error,
        "in_standard_errors": abs(difference) / error,
    }


def all_losses(asked: argparse.Namespace) -> dict[str, list[float]]:
    """By way, the best validation loss of each seed."""
    # Not at the top: the pages of the documentation read this module and need no Keras.
    from pipeline import engine

    engine.prepare()
    import store
    from benchmarks.features import real_features
    from pipeline.heads.clips import load_clips

    with tempfile.TemporaryDirectory() as scratch:
        clips = load_clips(store.open(asked.store or real_features(Path(scratch))))
        return {way: best_losses(clips, way, asked) for way in WAYS}


def best_losses(clips: Clips, way: str, asked: argparse.Namespace) -> list[float]:
    """One way's best validation loss of each seed."""
    from benchmarks.wide import wide_lstm
    from pipeline import engine
    from pipeline.heads.compiling import compile_head
    from pipeline.heads.config import TrainConfig
    from pipeline.heads.epochs import Callbacks, Fit, Progress, fit_head
    from pipeline.heads.plan import auto_batch, auto_precision
    from pipeline.heads.splits import make_split
    from pipeline.heads.statistics import masked_statistics

    split = make_split(clips.table, how="auto", seed=0, fractions=(0.7, 0.15, 0.15))
    statistics_ = masked_statistics(clips, clips.positions(split.train))
    batch = asked.batch or auto_batch(len(split.train), wide=True)
    policy = engine.keras_policy(auto_precision(wide=True) if way == "ours" else "float32")

    def built(seed: int) -> Any:
        return wide_lstm(
            clips,
            statistics_,
            units=asked.units,
            policy=policy,
            seed=seed,
            keras_own=way == "keras",
        )

    model = built(0)
    compile_head(model, LR)
    model.optimizer.build(model.trainable_variables)
    found = []
    for seed in range(asked.seeds):
        # The same start for both ways; one model, so that nothing is traced twice.
        model.set_weights(built(seed).get_weights())
        for variable in model.optimizer.variables:
            variable.assign(np.zeros(variable.shape, variable.dtype))
        settings = TrainConfig(
            head="lstm",
            epochs=asked.epochs,
            patience=asked.epochs,
            seed=seed,
            train_batch=batch,
            lr=LR,
        )
        fit = Fit(model=model, clips=clips, split=split, settings=settings, statistics=statistics_)
        watch = Callbacks(
            on_epoch=lambda report: print(
                f"  {way} seed {seed} epoch {report.epoch}: {report.val_loss:.4f}",  # noqa: B023
                f"({report.seconds:.0f} s)",
                file=sys.stderr,
            )
        )
        progress = Progress(lr=LR)
        fit_head(fit, progress, watch)
        found.append(progress.best_loss)
    return found


if __name__ == "__main__":
    main()
