"""Masked mean and scale of the training rows' features: what a head normalises by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

FLOOR = 0.05
"""No channel is divided by less than this share of the median channel's deviation, so a channel
that is almost always 0 (17 % of random features vanish in float16) cannot shout."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Statistics:
    """`mean` and `scale`, both (channels,) float32: a head sees (x − mean) · scale."""

    mean: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float32]

    def __repr__(self) -> str:
        return f"Statistics(mean={self.mean.shape}, scale={self.scale.shape})"

    @classmethod
    def neutral(cls, channels: int) -> Self:
        """Statistics that change nothing."""
        return cls(mean=np.zeros(channels, np.float32), scale=np.ones(channels, np.float32))


def masked_statistics(
    features: npt.NDArray[Any], mask: npt.NDArray[np.bool_], positions: npt.NDArray[np.int64]
) -> Statistics:
    """Statistics over the real steps of the clips at `positions`; padding does not count.

    `features` (n, steps, *shape) any dtype, `mask` (n, steps) bool. The channel is the last axis:
    pixels are pooled over height and width. Two passes in float64, 64 clips at a time.
    """

    def parts() -> Iterable[npt.NDArray[np.float64]]:
        for start in range(0, len(positions), 64):
            at = np.sort(positions[start : start + 64])
            steps = features[at][mask[at]]
            yield steps.reshape(-1, features.shape[-1]).astype(np.float64)

    channels = features.shape[-1]
    total, count = np.zeros(channels), 0
    for part in parts():
        total += part.sum(axis=0)
        count += len(part)
    mean = total / max(count, 1)
    squares = np.zeros(channels)
    for part in parts():
        squares += ((part - mean) ** 2).sum(axis=0)
    deviation = np.sqrt(squares / max(count, 1))
    varied = deviation[deviation > 0]
    floor = FLOOR * float(np.median(varied)) if len(varied) else 1.0
    scale = np.where(deviation > 0, 1.0 / np.maximum(deviation, floor), 0.0)
    return Statistics(mean=mean.astype(np.float32), scale=scale.astype(np.float32))
