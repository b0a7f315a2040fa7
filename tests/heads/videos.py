"""Stores of long files whose steps show what happens, and when: no video needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

import store
from pipeline.spec import Sampling, Spec

STEPS, CHANNELS, RATE = 8, 6, 2
LABELS = ("jump", "run", "wave")


def timeline_of(file: int, seconds: int = 40) -> list[tuple[float, float, str]]:
    """(start, end, label) in seconds of what happens in a file; between them nothing."""
    rng = np.random.default_rng([7, file])
    spans, at = [], float(rng.integers(1, 4))
    while at + 6 < seconds:
        end = at + float(rng.integers(3, 7))
        spans.append((at, end, LABELS[int(rng.integers(3))]))
        at = end + float(rng.integers(0, 4))
    return spans


def long_store(
    url: Path, *, files: int = 12, seconds: int = 40, groups: int = 0, split: str = ""
) -> Path:
    """A store of long files, two steps a second, eight in a row, the last row of each masked.

    groups: how many groups the files are of (0: each its own). Returns the annotations, a CSV.
    """
    spec = Spec(
        sampling=Sampling(steps=STEPS, rule="fps", fps=RATE), fit="crop", interpolation="area",
        size=299, backbone="inception_v3", weights="random:0", view="plain", precision="float32",
        dtype="float32", shape=(CHANNELS,),
    )  # fmt: skip
    layout = store.Layout(steps=STEPS, shape=(CHANNELS,), batch=8, dtype="float32")
    store.create(url, layout=layout, spec=spec.to_dict(), fingerprint=spec.fingerprint, software={})
    rows, features, masks, frames, times = [], [], [], [], []
    lines = ["path,start,end,label"]
    for file in range(files):
        length = seconds + file % 3
        moments = (np.arange(length * RATE) + 0.5) / RATE
        values = signal(moments, timeline_of(file, length), file)
        name = f"long/{file:02d}.mp4"
        lines += [
            f"{name},{start:g},{end:g},{label}" for start, end, label in timeline_of(file, length)
        ]
        for first in range(0, len(moments), STEPS):
            part = slice(first, first + STEPS)
            n = len(moments[part])
            start, end = first / RATE, min((first + STEPS) / RATE, length)
            pad = STEPS - n
            rows.append(
                {"video_id": f"{name}#t={start:g},{end:g}", "file": name, "start_s": start, "end_s": end,
                 "label": "", "group": f"g{file % groups}" if groups else name, "split": split}
            )  # fmt: skip
            features.append(np.pad(values[part], ((0, pad), (0, 0))))
            masks.append(np.arange(STEPS) < n)
            frames.append(np.pad((moments[part] * 25).astype(int), (0, pad), constant_values=-1))
            times.append(np.pad(moments[part], (0, pad), constant_values=np.nan))
    with store.Writer.acquire(str(url), owner="test") as writer:
        writer.append(pd.DataFrame(rows))
        everything = np.arange(len(rows))
        for batch, first in enumerate(range(0, len(rows), 8)):
            some = np.stack(features[first : first + 8]).astype(np.float32)
            digests = store.write_batch(str(url), batch, some, token=writer.token)
            writer.set(everything[first : first + 8], digest=digests)
        writer.put_steps(
            everything, np.stack(masks), np.stack(frames).astype(np.int32),
            np.stack(times).astype(np.float32),
        )  # fmt: skip
        writer.set(everything, frames_decoded=STEPS)
        writer.mark(everything, store.READY)
        writer.flush()
    annotations = url.with_suffix(".csv")
    annotations.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return annotations


def signal(
    moments: np.ndarray, spans: list[tuple[float, float, str]], file: int, noise: float = 0.4
) -> np.ndarray:
    """(n, channels): a direction for each label, noise everywhere."""
    rng = np.random.default_rng([11, file])
    values = rng.normal(0, noise, (len(moments), CHANNELS))
    for start, end, label in spans:
        inside = (moments >= start) & (moments < end)
        values[inside, LABELS.index(label)] += 1.0
    return values
