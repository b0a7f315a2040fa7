"""An epoch of the GRU head: from the store, and from one .npy file per clip by a Python generator.

Features of real clips, repeated to `--clips`. `npy` is the way of most repositories: features saved
per clip as float32, a generator that loads and stacks them, Keras' default `fit`. The other two are
ours: from memory (the store is read once, its seconds are given) and streamed where memory is
short. Each in a process of its own, alternating; a round is one epoch, files in the page cache.

    python -m benchmarks.epoch [--rounds 5] [--clips 512]
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import store
from benchmarks.alternating import compare, rates, save, serve, table
from benchmarks.features import real_features
from pipeline import engine

WAYS = {
    "npy": "a .npy per clip, Python generator, Keras' GRU and `fit`, batch 32",
    "npy64": "the same, batch 64, XLA off",
    "streamed": "ours, streamed from the store",
    "ours": "ours, the store in memory",
}

Round = Callable[[], dict[str, float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clips", type=int, default=512)
    parser.add_argument("--way", choices=WAYS)
    parser.add_argument("folder", nargs="?", default="")
    arguments = parser.parse_args()
    if arguments.way:
        serve(lambda: _PREPARE[arguments.way](Path(arguments.folder)))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_both(Path(folder), arguments.clips)
        report = compare(__file__, WAYS, [folder], arguments.rounds)
    figures = {"clips": arguments.clips, "ways": report}
    save("epoch", figures)
    print(shown(figures))


def shown(figures: dict[str, Any]) -> str:
    """The table of ways, and what reading the store costs once."""
    report = figures["ways"]
    load_s = statistics.median(rates(report, "ours", "load_s"))
    return "\n\n".join(
        [
            f"{figures['clips']} clips, {len(report['ours']['rounds'])} rounds",
            table(report, WAYS, "clips/s", "ours"),
            f"the store is read once, in {load_s:.2f} s",
        ]
    )


def write_both(folder: Path, clips: int) -> None:
    """The same sequences as a store and as one .npy per clip (float32, with its mask beside it)."""
    made = store.open(real_features(folder))
    sequences = made.load()
    table = made.table().loc[sequences.rows]
    chosen = np.arange(clips) % len(sequences)
    labels = table["label"].to_numpy()[chosen]
    features, mask = sequences.features[chosen], sequences.mask[chosen]
    (folder / "npy").mkdir()
    for number in range(clips):
        real = features[number].astype(np.float32)
        np.savez(folder / "npy" / f"{number}.mask.npz", mask=mask[number], label=labels[number])
        np.save(folder / "npy" / f"{number}.npy", real)
    url = str(folder / "many.zarr")
    layout = store.Layout(steps=made.steps, shape=made.shape, dtype=str(made.dtype))
    store.create(url, layout=layout, spec=made.spec, fingerprint=made.fingerprint, software={})
    with store.Writer.acquire(url, owner="benchmark") as writer:
        ids = [f"{number}.mp4" for number in range(clips)]
        rows = writer.append(pd.DataFrame({"video_id": ids, "label": labels}))
        for batch in range(-(-clips // layout.batch)):
            part = slice(batch * layout.batch, (batch + 1) * layout.batch)
            digests = store.write_batch(url, batch, features[part], token=writer.token)
            writer.set(rows[part], digest=digests)
        nothing = np.zeros(mask.shape)
        writer.put_steps(rows, mask, nothing, nothing)
        writer.mark(rows, store.READY)
        writer.flush()


def _npy(folder: Path, batch: int, *, xla: bool) -> Round:
    engine.prepare()
    import keras

    files = sorted((folder / "npy").glob("*.npy"))
    notes = [dict(np.load(file.with_suffix(".mask.npz"))) for file in files]
    masks = [note["mask"] for note in notes]
    classes = sorted({str(note["label"]) for note in notes})
    labels = [classes.index(str(note["label"])) for note in notes]
    shape = np.load(files[0]).shape

    def generator() -> Iterator[tuple[tuple[Any, Any], Any]]:
        while True:
            order = list(range(len(files)))
            random.shuffle(order)
            for start in range(0, len(order), batch):
                at = order[start : start + batch]
                features = np.stack([np.load(files[i]) for i in at])
                answers = np.eye(len(classes), dtype=np.float32)[[labels[i] for i in at]]
                yield (features, np.stack([masks[i] for i in at])), answers

    features = keras.Input(shape)
    mask = keras.Input(shape[:1], dtype="bool")
    x = keras.layers.GRU(16, return_sequences=True)(features, mask=mask)
    x = keras.layers.GRU(8)(x, mask=mask)
    x = keras.layers.Dropout(0.4)(x)
    x = keras.layers.Dense(8, activation="relu")(x)
    outputs = keras.layers.Dense(len(classes), activation="softmax")(x)
    model = keras.Model([features, mask], outputs)
    model.compile(
        "adam",
        "categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile="auto" if xla else False,
    )
    steps = -(-len(files) // batch)
    source = generator()

    def one_round() -> dict[str, float]:
        began = time.perf_counter()
        model.fit(source, steps_per_epoch=steps, verbose=0)
        return {"rate": len(files) / (time.perf_counter() - began)}

    one_round()
    return one_round


def _ours(folder: Path, *, stream: bool) -> Round:
    engine.prepare()
    from pipeline.heads.clips import load_clips
    from pipeline.heads.compiling import compiled_head
    from pipeline.heads.config import TrainConfig
    from pipeline.heads.epochs import Callbacks, Fit, Progress, fit_head
    from pipeline.heads.plan import resolve
    from pipeline.heads.splits import Split
    from pipeline.heads.statistics import masked_statistics

    began = time.perf_counter()
    clips = load_clips(store.open(str(folder / "many.zarr")), stream=stream)
    load_s = time.perf_counter() - began
    statistics_ = masked_statistics(clips, np.arange(len(clips)))
    nobody = np.zeros(0, np.int64)
    split = Split(train=clips.rows, validation=nobody, test=nobody, how="grouped", seed=0)
    settings = resolve(TrainConfig(head="gru", options={"preset": "standard"}, epochs=1), [split])
    fit = Fit(
        model=compiled_head(clips, settings, statistics_),
        clips=clips,
        split=split,
        settings=settings,
        statistics=statistics_,
    )

    def one_round() -> dict[str, float]:
        began = time.perf_counter()
        fit_head(fit, Progress(), Callbacks())
        return {"rate": len(clips) / (time.perf_counter() - began), "load_s": load_s}

    one_round()
    return one_round


_PREPARE: dict[str, Callable[[Path], Round]] = {
    "npy": lambda folder: _npy(folder, 32, xla=True),
    "npy64": lambda folder: _npy(folder, 64, xla=False),
    "streamed": lambda folder: _ours(folder, stream=True),
    "ours": lambda folder: _ours(folder, stream=False),
}

if __name__ == "__main__":
    main()
