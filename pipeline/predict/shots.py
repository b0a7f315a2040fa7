"""Where a video cuts: steps whose features jump, while those around them do not.

A window across a cut would show the head the end of one scene and the start of the next as one
movement, unlike any clip of its training.
"""

from __future__ import annotations

import bisect
import itertools

import numpy as np
from numpy.typing import NDArray

_AROUND = 12  # jumps on either side that a jump is compared with
_USUAL = 0.85  # their quantile: where pictures are shown three times over, two of three are 0
_TIMES = 3.0  # how many times larger than that it must be
_LEAST = 0.01  # and at least this cosine distance: noise over nothing is no jump
_ASIDE = 3  # steps before and after whose medians must differ too: a flash is no cut
_BLOCK = 4096  # steps that are turned into float32 at once


def shots(features: NDArray[np.generic], least_steps: int) -> list[tuple[int, int]]:
    """The shots between cuts, as (first step, step after the last), from 0 to the end.

    features: (steps, *shape), one video in its order
    least_steps: of the shortest shot; of cuts closer together the larger one is kept

    What moves all steps about alike (walking, panning), single frames (a flash) and repeated ones
    make no cut.
    """
    flat = features.reshape(len(features), -1)
    jump = _distances(flat)
    stands_out = np.maximum(_LEAST, _TIMES * _usual(jump))
    candidates = np.flatnonzero(jump >= stands_out)
    cuts: list[int] = []
    for i in candidates[np.argsort(-jump[candidates], kind="stable")]:
        cut = int(i) + 1
        place = bisect.bisect(cuts, cut)
        before = cuts[place - 1] if place else 0
        after = cuts[place] if place < len(cuts) else len(features)
        if min(cut - before, after - cut) >= least_steps and _differ(flat, cut) >= stands_out[i]:
            cuts.insert(place, cut)
    return list(itertools.pairwise([0, *cuts, len(features)]))


def _usual(jump: NDArray[np.float32]) -> NDArray[np.float64]:
    """The usual size of the jumps around each one, itself left out."""
    if len(jump) < 2:
        return np.zeros(len(jump))
    padded = np.pad(jump, _AROUND, constant_values=np.nan)
    around = np.lib.stride_tricks.sliding_window_view(padded, 2 * _AROUND + 1).copy()
    around[:, _AROUND] = np.nan
    usual: NDArray[np.float64] = np.nanquantile(around, _USUAL, axis=1)
    return usual


def _distances(flat: NDArray[np.generic]) -> NDArray[np.float32]:
    """(steps - 1,) cosine distances from each step to the next."""
    parts = [
        _distance(part[:-1], part[1:])
        for start in range(0, len(flat) - 1, _BLOCK)
        for part in [flat[start : start + _BLOCK + 1].astype(np.float32)]
    ]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def _differ(flat: NDArray[np.generic], cut: int) -> float:
    """The cosine distance between what is shown before and after a cut, single frames left out."""
    before = np.median(flat[max(cut - _ASIDE, 0) : cut].astype(np.float32), axis=0)
    after = np.median(flat[cut : cut + _ASIDE].astype(np.float32), axis=0)
    return float(_distance(before[None], after[None])[0])


def _distance(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    distance: NDArray[np.float32] = 1 - (a * b).sum(axis=1) / np.maximum(norms, 1e-6)
    return distance
