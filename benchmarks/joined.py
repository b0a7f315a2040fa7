"""The wide LSTM on streams that are joined early, beside one stream of the same width.

One training step of random numbers, whose values do not change the cost, with as many channels in both:
InceptionV3's and those of `motion`, as one stream, or as two, each projected by a layer of its own. Both
ways have a process of their own with all cores; they alternate.

    python -m benchmarks.joined [--rounds 5] [--units 4096] [--batch 64]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.alternating import compare, save, serve, table

STREAMS = (2048, 261)
STEPS, CLASSES = 40, 10
WAYS = {
    "joined": "streams of 2048 and 261 channels, joined early",
    "one": "one stream of 2309 channels",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--units", type=int, default=4096)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--way", choices=WAYS)
    arguments = parser.parse_args()
    if arguments.way:
        serve(lambda: _prepare(arguments.way, arguments.units, arguments.batch))
        return
    sizes = ["--units", str(arguments.units), "--batch", str(arguments.batch)]
    report = compare(__file__, WAYS, sizes, arguments.rounds)
    figures = {"units": arguments.units, "batch": arguments.batch, "ways": report}
    save("joined", figures)
    print(shown(figures))


def shown(figures: dict[str, Any]) -> str:
    """The table of both ways, and what was trained."""
    rounds = len(figures["ways"]["joined"]["rounds"])
    return "\n\n".join(
        [
            f"an LSTM of {figures['units']}, batch {figures['batch']}, {rounds} rounds",
            table(figures["ways"], WAYS, "clips/s", "joined"),
        ]
    )


def _prepare(way: str, units: int, batch: int) -> Callable[[], dict[str, float]]:
    from pipeline import engine

    engine.prepare()
    from pipeline.heads.compiling import compile_head
    from pipeline.heads.plan import auto_precision
    from pipeline.heads.zoo import build_head

    rng = np.random.default_rng(0)
    features = rng.normal(size=(batch, STEPS, sum(STREAMS))).astype(np.float16)
    inputs = {"features": features, "mask": np.ones((batch, STEPS), bool)}
    labels = np.eye(CLASSES, dtype=np.float32)[np.arange(batch) % CLASSES]
    model = build_head(
        "lstm",
        STEPS,
        (sum(STREAMS),),
        CLASSES,
        {"units": units, "dense": max(units // 4, 1)},
        precision=engine.keras_policy(auto_precision(wide=True)),
        streams=STREAMS if way == "joined" else (),
    )
    compile_head(model, 1e-4)
    model.train_on_batch(inputs, labels)

    def one_round() -> dict[str, float]:
        began = time.perf_counter()
        model.train_on_batch(inputs, labels)
        return {"rate": batch / (time.perf_counter() - began)}

    return one_round


if __name__ == "__main__":
    main()
