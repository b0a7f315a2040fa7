"""Which step of one stream goes with each step of another: the same frame, or the nearest in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from pipeline.heads.source import Array, Float32, Mask, Rows

SAME, NEAREST, IN_ORDER, APART = 0, 1, 2, 3
"""How the steps of a clip were aligned: equal frames; the nearest time; one by one, because no times are
known and both have as many steps; not at all."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepTimes:
    """Where the steps of some clips are in their videos.

    frame: (n, steps) int32, −1 in padding · seconds: (n, steps) float32, NaN in padding and where a
    clip's times are not known
    """

    frame: npt.NDArray[np.int32]
    seconds: Float32

    @classmethod
    def of(cls, source: Any, rows: Rows) -> Self:
        """Those of a source's rows.

        An import that knows no times holds the steps' numbers in their place (`flows.exchange`): one
        apart, which is taken for unknown.
        """
        frame, seconds = source.steps_of(rows)
        frame, seconds = np.asarray(frame, np.int32), np.array(seconds, np.float32)
        if source.spec.get("backbone") == "imported":
            since = seconds - seconds[:, :1]
            counted = (since == np.arange(seconds.shape[1])) | (frame < 0)
            seconds[counted.all(axis=1)] = np.nan
        return cls(frame=frame, seconds=seconds)

    @property
    def real(self) -> Mask:
        """(n, steps): which steps are no padding."""
        return self.frame >= 0

    @property
    def timed(self) -> Mask:
        """(n,): whether every real step has a time."""
        known: Mask = np.isfinite(self.seconds) | ~self.real
        return np.asarray(known.all(axis=1))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Aligned:
    """The steps of a stream for those of the first one.

    places: (n, steps of the first) int64; 0 in padding and for a clip that is `APART`
    how: (n,) uint8, one of `SAME`, `NEAREST`, `IN_ORDER`, `APART`
    gap_s: (n,) float32, how far apart in time a step and its partner are at most; 0 unless `NEAREST`
    """

    places: Rows
    how: npt.NDArray[np.uint8]
    gap_s: Float32

    def of(self, clips: Mask | Rows) -> Aligned:
        """Those of some clips."""
        return Aligned(places=self.places[clips], how=self.how[clips], gap_s=self.gap_s[clips])


def at_steps(features: Array, aligned: Aligned) -> Array:
    """(n, steps of the first, channels) of `features` (n, steps, *shape), a new array.

    Padding of the first has the numbers of some step: whoever knows the mask sets it to zero.
    """
    flat = features.reshape(*features.shape[:2], -1)
    taken: Array = np.take_along_axis(flat, aligned.places[:, :, None], axis=1)
    return taken


def align(first: StepTimes, other: StepTimes) -> Aligned:
    """For each real step of `first` the step of `other`, clip by clip; of two as near, the earlier.

    Clips whose steps show equal frames are aligned one by one, whatever their times. Others need times in
    both streams, or as many steps in both if a time is missing.
    """
    clips, steps = first.frame.shape
    places = np.zeros((clips, steps), np.int64)
    gap_s = np.zeros(clips, np.float32)
    counts, others = first.real.sum(axis=1), other.real.sum(axis=1)
    some = (counts > 0) & (others > 0)
    most = min(steps, other.frame.shape[1])
    equal = (first.frame[:, :most] == other.frame[:, :most]).all(axis=1)
    equal &= (counts == others) & (counts <= most)
    timed = first.timed & other.timed
    how = np.select(
        [~some, equal & timed, timed, counts == others],
        [APART, SAME, NEAREST, IN_ORDER],
        APART,
    ).astype(np.uint8)
    # Frames count from 0 in any clip: without times equal numbers say no more than equal counts.
    one_by_one = np.isin(how, (SAME, IN_ORDER))
    places[one_by_one] = np.where(first.real[one_by_one], np.arange(steps), 0)
    for clip in np.flatnonzero(how == NEAREST):
        real = np.flatnonzero(first.real[clip])
        wanted = first.seconds[clip, real].astype(np.float64)
        there = other.seconds[clip, other.real[clip]].astype(np.float64)
        distance = np.abs(wanted[:, None] - there[None])
        nearest = distance.min(axis=1)
        # Times are rounded to float32: two steps as near are so within what that may have changed.
        latest = np.float32(max(wanted.max(), there.max()))
        as_near = distance <= nearest[:, None] + 2 * np.spacing(latest)
        places[clip, real] = as_near.argmax(axis=1)
        gap_s[clip] = nearest.max()
    return Aligned(places=places, how=how, gap_s=gap_s)
