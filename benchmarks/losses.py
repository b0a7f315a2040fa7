"""Whether the fast wide LSTM learns as well: best validation losses over seeds, on real features.

Ours (one product for all inputs, bfloat16 where the CPU has it) beside Keras' own layer in float32,
with the same split, batch, learning rate, start weights and number of epochs.

    python benchmarks/losses.py [--store STORE] [--seeds 5] [--epochs 5] [--units 4096] [--batch 0]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline import engine

engine.prepare()  # before Keras is imported

import store  # noqa: E402
from benchmarks.alternating import save  # noqa: E402
from benchmarks.features import real_features  # noqa: E402
from benchmarks.wide import wide_lstm  # noqa: E402
from pipeline.heads.clips import Clips, load_clips  # noqa: E402
from pipeline.heads.config import TrainConfig  # noqa: E402
from pipeline.heads.fitting import compile_head, fit_head  # noqa: E402
from pipeline.heads.splits import make_split  # noqa: E402
from pipeline.heads.statistics import masked_statistics  # noqa: E402
from pipeline.heads.training import auto_batch, head_policy  # noqa: E402

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
    with tempfile.TemporaryDirectory() as scratch:
        clips = load_clips(store.open(arguments.store or real_features(Path(scratch))))
        losses = {way: best_losses(clips, way, arguments) for way in ("ours", "keras")}
    report = judged(losses["ours"], losses["keras"])
    print("\n| way | best validation loss over the seeds | mean |\n| --- | --- | ---: |")
    for way, text in (("ours", "ours"), ("keras", "Keras' layer, float32")):
        shown = " ".join(f"{loss:.4f}" for loss in losses[way])
        print(f"| {text} | {shown} | {statistics.mean(losses[way]):.4f} |")
    print(
        f"\nthe means differ by {report['difference']:+.4f}: "
        f"{report['in_standard_errors']:.2f} standard errors ({report['standard_error']:.4f})"
    )
    sizes = {name: getattr(arguments, name) for name in ("units", "batch", "epochs", "seeds")}
    save("losses", sizes | {"losses": losses} | report)


def judged(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """The difference of two means and its standard error, the seeds taken as independent draws."""
    difference = statistics.mean(ours) - statistics.mean(theirs)
    error = float(np.sqrt(sum(statistics.variance(x) / len(x) for x in (ours, theirs))))
    return {
        "difference": difference,
        "standard_error": error,
        "in_standard_errors": abs(difference) / error,
    }


def best_losses(clips: Clips, way: str, asked: argparse.Namespace) -> list[float]:
    """The best validation loss of each seed."""
    split = make_split(clips.table, how="auto", seed=0, fractions=(0.7, 0.15, 0.15))
    train, validation = clips.positions(split.train), clips.positions(split.validation)
    statistics_ = masked_statistics(clips, train)
    batch = asked.batch or auto_batch(len(train), wide=True)
    policy = head_policy("auto", wide=True) if way == "ours" else "float32"

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
        config = TrainConfig(head="lstm", epochs=asked.epochs, patience=asked.epochs, seed=seed)
        progress = fit_head(
            model,
            clips,
            train,
            validation,
            config,
            batch=batch,
            lr=LR,
            statistics=statistics_,
            on_epoch=lambda report: print(
                f"  {way} seed {seed} epoch {report.epoch}: {report.val_loss:.4f}",  # noqa: B023
                f"({report.seconds:.0f} s)",
                file=sys.stderr,
            ),
        )
        found.append(progress.best_loss)
    return found


if __name__ == "__main__":
    main()
