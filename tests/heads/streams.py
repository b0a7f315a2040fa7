"""Streams of the same clips in memory: each step's numbers say which clip, stream and frame it is of."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from tests.heads.sources import MemorySource

FPS = 10


@dataclass
class TimedSource(MemorySource):
    """A `MemorySource` that knows the frames and times of its steps, and an address."""

    frames: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int32))
    url: str = ""
    test_sets: dict[str, Any] = field(default_factory=dict)

    def steps_of(self, rows: Any) -> tuple[np.ndarray, np.ndarray]:
        frames = self.frames[np.asarray(rows, dtype=np.int64)]
        return frames, np.where(frames < 0, np.nan, frames / FPS).astype(np.float32)


def clip_name(number: int) -> str:
    return f"clip-{number}.mp4"


def stream(
    name: str,
    clips: Sequence[int],
    frames: Sequence[Sequence[int]],
    *,
    steps: int = 4,
    status: Sequence[int] | None = None,
    version: Sequence[int] | None = None,
    channels: int = 3,
    labels: Sequence[str] | None = None,
) -> TimedSource:
    """Row i is clip `clips[i]` at `frames[i]`; a step is (clip, length of the name, frame, 0 …)."""
    count = len(clips)
    index = np.full((count, steps), -1, np.int32)
    features = np.zeros((count, steps, channels), np.float32)
    for row, (clip, chosen) in enumerate(zip(clips, frames, strict=True)):
        index[row, : len(chosen)] = chosen
        features[row, : len(chosen), 0] = clip
        features[row, : len(chosen), 1] = len(name)
        features[row, : len(chosen), 2] = chosen
    versions = version or [0] * count
    frame = pd.DataFrame(
        {
            "video_id": [clip_name(clip) for clip in clips],
            "label": labels or [f"label {clip % 2}" for clip in clips],
            "split": "",
            "group": [f"g{clip // 2}" for clip in clips],
            "status": np.array(status or [1] * count, np.uint8),
            "sha256": [
                hashlib.sha256(f"{clip} {which}".encode()).hexdigest()
                for clip, which in zip(clips, versions, strict=True)
            ],
            "size_bytes": [100 + clip for clip in clips],
        },
        index=pd.RangeIndex(count, name="row"),
    )
    return TimedSource(
        features,
        index >= 0,
        frame,
        fingerprint=hashlib.sha256(name.encode()).hexdigest(),
        spec={"backbone": name, "sampling": {"steps": steps}},
        frames=index,
        url=f"{name}.zarr",
    )
