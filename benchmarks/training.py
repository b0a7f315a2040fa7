"""The wide LSTM in training: clips/s of Keras' default `fit`, of Keras at our batch, and of ours.

Features of real clips, repeated to fill the batches: their values do not change the cost. Every way
has a process of its own with all cores; they alternate. Start-up (building, tracing, one step) is
apart, and Keras' QR decomposition for the start weights is left out of it. `products` are the matrix
products of our step alone, by TensorFlow as in the head and in the type that `auto` has: they bound what
training can reach. An EPYC without AMX had them at 5.8 × `fit`, and ours at 5.1 ×.

    python -m benchmarks.training [--rounds 5] [--units 4096] [--batch 128]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import store
from benchmarks.alternating import compare, save, serve, table
from benchmarks.features import real_features
from pipeline import engine

WAYS = {
    "default": "Keras' default: `fit`, float32, batch 32",
    "keras32": "Keras' layer, float32, our batch, XLA off",
    "keras16": "Keras' layer, mixed bfloat16, our batch, XLA off",
    "ours32": "ours, float32, our batch",
    "ours": "ours as `auto` has it (bfloat16 where the CPU does)",
    "products": "the matrix products of our step alone, in the same type",
}

Round = Callable[[], dict[str, float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--units", type=int, default=4096)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--ways", default="default,keras32,ours,products")
    parser.add_argument("--way", choices=WAYS)
    parser.add_argument("url", nargs="?", default="")
    arguments = parser.parse_args()
    if arguments.way:
        serve(lambda: _prepare(arguments.way, arguments.url, arguments.units, arguments.batch))
        return
    ways = {way: WAYS[way] for way in arguments.ways.split(",")}
    with tempfile.TemporaryDirectory() as scratch:
        url = real_features(Path(scratch))
        sizes = ["--units", str(arguments.units), "--batch", str(arguments.batch)]
        report = compare(__file__, ways, [*sizes, url], arguments.rounds)
    figures = {"units": arguments.units, "batch": arguments.batch, "ways": report}
    save("training", figures)
    print(shown(figures))


def shown(figures: dict[str, Any]) -> str:
    """The table of ways, and what was trained."""
    rounds = len(figures["ways"]["ours"]["rounds"])
    return "\n\n".join(
        [
            f"an LSTM of {figures['units']}, our batch {figures['batch']}, {rounds} rounds",
            table(figures["ways"], WAYS, "clips/s", "ours"),
        ]
    )


def _prepare(way: str, url: str, units: int, batch: int) -> Round:
    engine.prepare()
    from benchmarks.wide import wide_lstm
    from pipeline.heads.clips import load_clips
    from pipeline.heads.compiling import compile_head
    from pipeline.heads.lean import keras
    from pipeline.heads.plan import auto_precision
    from pipeline.heads.statistics import masked_statistics

    clips = load_clips(store.open(url))
    features, mask = clips.gather(np.arange(batch) % len(clips))
    labels = np.eye(len(clips.classes), dtype=np.float32)[
        clips.labels[np.arange(batch) % len(clips)]
    ]
    if way == "products":
        return _products(batch, clips.steps, clips.shape[-1], units)
    policy = {"ours": engine.keras_policy(auto_precision(wide=True)), "keras16": "mixed_bfloat16"}
    model: Any = wide_lstm(
        clips,
        masked_statistics(clips, np.arange(len(clips))),
        units=units,
        policy=policy.get(way, "float32"),
        seed=0,
        keras_own=not way.startswith("ours"),
    )
    if way == "default":
        model.compile(optimizer=keras.optimizers.Adam(1e-4), loss="categorical_crossentropy")
        few = {"features": features[:32].astype(np.float32), "mask": mask[:32]}, labels[:32]

        def step() -> int:
            model.fit(*few, batch_size=32, verbose=0)
            return 32

    else:
        compile_head(model, 1e-4)

        def step() -> int:
            model.train_on_batch({"features": features, "mask": mask}, labels)
            return batch

    return _timed(step)


def _timed(step: Callable[[], int]) -> Round:
    """Rounds of one step, which has run once before; it returns how many clips it was for."""
    step()

    def one_round() -> dict[str, float]:
        began = time.perf_counter()
        count = step()
        return {"rate": count / (time.perf_counter() - began)}

    return one_round


def _products(batch: int, steps: int, width: int, units: int) -> Round:
    """The products of an LSTM's training step: inputs and states forwards, then the gradients of the
    states, of the recurrent weights and of the input weights; TensorFlow's, as the head's are."""
    import tensorflow as tf

    from pipeline.heads.plan import auto_precision

    dtype = tf.as_dtype(auto_precision(wide=True))

    def numbers(rows: int, columns: int) -> Any:
        # Of this size a state keeps its magnitude from step to step.
        scale = columns**-0.5
        return tf.cast(tf.random.stateless_normal((rows, columns), (0, 1)) * scale, dtype)

    inputs, into = numbers(steps * batch, width), numbers(width, 4 * units)
    start, recurrent = numbers(batch, units), numbers(units, 4 * units)

    @tf.function  # type: ignore[untyped-decorator]
    def products() -> Any:
        projected = tf.matmul(inputs, into)
        state = start
        for _ in tf.range(steps):
            state = tf.matmul(state, recurrent)[:, :units]
        turned, gradient = tf.transpose(recurrent), projected[:batch]
        back = start
        for _ in tf.range(steps):
            back = tf.matmul(gradient, turned)
            gradient = tf.tile(back, (1, 4))
        before = tf.tile(state + back, (steps, 1))
        found = (
            tf.matmul(before, projected, transpose_a=True),
            tf.matmul(inputs, projected, transpose_a=True),
        )
        return [tf.reduce_sum(tf.cast(one[0], tf.float32)) for one in found]

    def step() -> int:
        for value in products():
            float(value)
        return batch

    return _timed(step)


if __name__ == "__main__":
    main()
