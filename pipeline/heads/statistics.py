"""Mean and scale of features: what a head normalises by, and what clips are compared under."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from pipeline.heads.clips import Clips
from pipeline.heads.source import Array, Float32, Float64, Rows

BLOCK = 4096
"""Vectors that are made float32 at a time: bounds memory, whatever the store's size."""
FLOOR = 0.05
"""No channel is divided by less than this share of the median channel's deviation, so a channel
that is almost always 0 (17 % of random features vanish in float16) does not dominate."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Statistics:
    """`mean` and `scale`, both (channels,) float32: x is seen, or compared, as (x − mean) · scale."""

    mean: Float32
    scale: Float32

    def __repr__(self) -> str:
        return f"Statistics(mean={self.mean.shape}, scale={self.scale.shape})"

    @classmethod
    def neutral(cls, channels: int) -> Self:
        """Statistics that change nothing."""
        return cls(mean=np.zeros(channels, np.float32), scale=np.ones(channels, np.float32))

    @classmethod
    def of(cls, vectors: Array) -> Self:
        """The statistics of these vectors (n, channels); constant channels are ignored."""
        count = max(len(vectors), 1)
        blocks = [slice(start, start + BLOCK) for start in range(0, len(vectors), BLOCK)]
        total, squares = np.zeros(vectors.shape[1]), np.zeros(vectors.shape[1])
        for block in blocks:
            total += vectors[block].sum(axis=0, dtype=np.float64)
        mean = (total / count).astype(np.float32)
        for block in blocks:
            gap = vectors[block] - mean
            squares += np.square(gap, dtype=np.float32).sum(axis=0, dtype=np.float64)
        return cls(mean=mean, scale=scale_of(np.sqrt(squares / count)))

    def unit(self, vectors: Array) -> Float32:
        """The scaled vectors (n, channels) at length 1; a vector at the mean stays 0."""
        scaled = np.array(vectors, np.float32)
        scaled -= self.mean
        scaled *= self.scale
        lengths = np.sqrt(np.einsum("nc,nc->n", scaled, scaled))[:, None]
        scaled /= np.maximum(lengths, 1e-12)
        return scaled


def channels_of(shape: Sequence[int]) -> int:
    """How many numbers of a step of this shape are normalised apart."""
    return int(shape[-1]) if len(shape) == 3 else int(np.prod(shape))


def masked_statistics(clips: Clips, positions: Rows) -> Statistics:
    """Statistics over the real steps of the clips at `positions`; padding does not count.

    For pixels (height, width, channel) the channel is the last axis, pooled over the others; a vector
    or landmarks × coordinates count each number as a channel.
    """
    real = (features[mask] for features, mask, _ in clips.batches(positions, 32))
    return merged_statistics(real, channels_of(clips.shape))


def merged_statistics(parts: Iterable[Array], channels: int) -> Statistics:
    """Statistics over all vectors of these parts (n, …), each of so many channels.

    One pass in float64, merging each part's mean and squares into the whole's (Chan et al. 1979).
    """
    mean, squares, count = np.zeros(channels), np.zeros(channels), 0
    for vectors in parts:
        part = vectors.reshape(-1, channels).astype(np.float64)
        part_mean = part.mean(axis=0)
        gap, merged = part_mean - mean, count + len(part)
        squares += ((part - part_mean) ** 2).sum(axis=0) + gap**2 * (count * len(part) / merged)
        mean = mean + gap * (len(part) / merged)
        count = merged
    return Statistics(
        mean=mean.astype(np.float32), scale=scale_of(np.sqrt(squares / max(count, 1)))
    )


def scale_of(deviation: Float64) -> Float32:
    """The factor (channels,) for channels of these standard deviations; 0 for a constant one."""
    varied = deviation[deviation > 0]
    floor = FLOOR * float(np.median(varied)) if len(varied) else 1.0
    scale = np.where(deviation > 0, 1.0 / np.maximum(deviation, floor), 0.0)
    return scale.astype(np.float32)
