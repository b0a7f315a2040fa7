"""Synthetic sources in memory whose classes differ only in the order of time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd


@dataclass
class Sequences:
    features: np.ndarray
    mask: np.ndarray
    rows: np.ndarray


@dataclass
class MemorySource:
    """A `SequenceSource` of arrays; `status` may hold rows that are not ready."""

    features: np.ndarray
    mask: np.ndarray
    frame: pd.DataFrame
    fingerprint: str = "f" * 64
    spec: dict[str, Any] = field(
        default_factory=lambda: {"backbone": "none", "sampling": {"steps": 1}}
    )
    reads: int = 0

    @property
    def classes(self) -> list[str]:
        return sorted(set(self.frame["label"]) - {""})

    @property
    def steps(self) -> int:
        return self.features.shape[1]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.features.shape[2:]

    def table(self) -> pd.DataFrame:
        return self.frame.copy()

    def load(self, rows: Any = None) -> Sequences:
        self.reads += 1
        rows = np.flatnonzero(self.frame["status"] == 1) if rows is None else np.asarray(rows)
        return Sequences(self.features[rows], self.mask[rows], rows)

    def batches(
        self,
        rows: Any = None,
        size: int = 32,
        *,
        shuffle: bool = False,
        seed: int = 0,
        epoch: int = 0,
    ) -> Iterator[Sequences]:
        rows = np.flatnonzero(self.frame["status"] == 1) if rows is None else np.asarray(rows)
        if shuffle:
            rows = np.random.default_rng((seed, epoch)).permutation(rows)
        for start in range(0, len(rows), size):
            yield self.load(rows[start : start + size])

    def digests(self, rows: Any) -> np.ndarray:
        return np.array([hash(self.features[r].tobytes()) % 2**32 for r in rows], dtype=np.uint32)


def rising_or_falling(
    clips: int = 64, steps: int = 8, channels: int = 6, groups: int = 16, seed: int = 0
) -> MemorySource:
    """Clips of classes `fall` and `rise`: the same values, one the other's reverse in time."""
    rng = np.random.default_rng(seed)
    labels = np.arange(clips) % 2
    lengths = rng.integers(max(2, steps // 2), steps + 1, clips)
    mask = np.arange(steps)[None, :] < lengths[:, None]
    ramp = np.arange(steps)[None, :, None] / np.maximum(lengths - 1, 1)[:, None, None]
    ramp = np.where(labels[:, None, None] == 1, ramp, 1 - ramp)
    loud = np.linspace(1, 2, channels)
    features = (ramp * loud + rng.normal(0, 0.05, (clips, steps, channels))).astype(np.float16)
    features[~mask] = 0
    names = np.array(["fall", "rise"])[labels]
    # Groups shared by both classes, as UCF's are.
    group = [f"g{(i // 2) % groups:02d}" for i in range(clips)]
    frame = pd.DataFrame(
        {
            "video_id": [f"{n}/clip_{i:03d}.mp4" for i, n in enumerate(names)],
            "label": names,
            "split": "",
            "group": group,
            "status": np.ones(clips, dtype=np.int8),
        },
        index=pd.RangeIndex(clips, name="row"),
    )
    return MemorySource(features, mask, frame)
