"""Where a video cuts: steps whose features jump, while those around them do not.

A window across a cut would show the head the end of one scene and the start of the next as one
movement, which no clip of its training did.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

_AROUND = 4  # steps on either side that a jump is held against
_TIMES = 5.0  # how many times larger it must be than theirs
_LEAST = 0.01  # and at least this cosine distance: noise over nothing is no jump


def shots(features: NDArray[np.generic], least: int) -> list[tuple[int, int]]:
    """The stretches between cuts, as (first step, step after the last), from 0 to the end.

    features: (steps, *shape), one video in its order. least: steps; of cuts closer together the
    larger one stays. Walking, panning and flicker move all steps about alike and make no cut.
    """
    flat = features.reshape(len(features), -1).astype(np.float32)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    jump = 1 - (flat[1:] * flat[:-1]).sum(axis=1)
    cuts: list[int] = []
    for i in np.argsort(-jump, kind="stable"):
        around = np.concatenate([jump[max(i - _AROUND, 0) : i], jump[i + 1 : i + 1 + _AROUND]])
        if jump[i] < _LEAST:
            break
        borders = [0, *cuts, len(features)]
        lonely = all(abs(int(i) + 1 - border) >= least for border in borders)
        if lonely and jump[i] >= _TIMES * np.median(around if len(around) else jump):
            cuts.append(int(i) + 1)
    borders = [0, *sorted(cuts), len(features)]
    return list(itertools.pairwise(borders))
