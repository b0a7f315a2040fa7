"""Which frames of a clip become the steps of its sequence: pure rules, one entry each in `RULES`.

Every rule gives frame indices that are strictly increasing, within the clip, and at most
`sampling.steps` many. A clip that is shorter than the sequence gives all that the rule finds in it.
`uniform`, `stride` and `first` count frames; `fps` goes by the frames' times.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pipeline.spans import Span
from pipeline.spec import Sampling

ASSUMED_FPS = 25.0
"""Frames per second taken for a clip whose container does not say."""

_EXACT_S = 1e-6
_COARSE_S = 2e-3


def sample_indices(sampling: Sampling, n_frames: int, fps: float = 0.0) -> NDArray[np.int64]:
    """The frames to take from a clip of `n_frames` frames, shown at a constant rate.

    Returns int64 indices, strictly increasing, in `[0, n_frames)`, at most `sampling.steps`
    and at least one where the clip has a frame. `fps` (0: unknown) is read by rules that go by time;
    `sample_times` applies any rule to frames of any times.

    >>> sample_indices(Sampling(steps=4), 8)
    array([1, 3, 5, 7])
    """
    if n_frames <= 0:
        return np.empty(0, dtype=np.int64)
    if (indices := rule_of(sampling).indices) is not None:
        return indices(sampling, n_frames)
    frame_s = 1 / (fps if math.isfinite(fps) and fps > 0 else ASSUMED_FPS)
    return sample_times(sampling, np.arange(n_frames, dtype=np.float64) * frame_s, frame_s=frame_s)


def sample_times(
    sampling: Sampling,
    times: NDArray[np.float64],
    *,
    frame_s: float,
    tick_s: float = 0.0,
    goes_on: bool = False,
) -> NDArray[np.int64]:
    """The frames to take from a clip whose frames are shown at `times`.

    The rule `fps` looks at the clip at moments 1/fps apart, the first `offset`/fps after its start (of
    a clip shorter than 1/fps: the same share of the clip), and takes the frame that is shown then. A
    moment at which the frame before is still shown adds nothing: no frame is taken twice, and a
    clip that is slower than the wanted rate gives every frame. It goes on until it has
    `sampling.steps` frames or the clip ends.

    times: (n,) seconds, rising, from the first frame's 0. frame_s: how long the last frame is
    shown. tick_s: the unit in which the container counts, by half of which its times may be off.
    goes_on: the clip is a part of a longer one, and is looked at when that is, if it is at all.
    """
    moments_of = rule_of(sampling).moments
    if moments_of is None:
        return sample_indices(sampling, len(times))
    if not len(times):
        return np.empty(0, dtype=np.int64)
    end = float(times[-1]) + frame_s
    moments = moments_of(sampling, end, tick_s)
    if goes_on and (regular := moments_of(sampling, math.inf, tick_s)).start_s < end:
        moments = regular
    # At its very end a clip shows nothing any more, however the sum was rounded.
    passed = moments.before(np.append(times, end + moments.slack_s - _EXACT_S))
    shown = np.flatnonzero(np.diff(passed) > 0)
    # An offset just below 1 looks at a short clip at its very end.
    return (shown if len(shown) else np.array([len(times) - 1]))[: sampling.steps].astype(np.int64)


def sample_span(
    sampling: Sampling,
    times: NDArray[np.float64],
    span: Span,
    *,
    frame_s: float,
    tick_s: float = 0.0,
) -> tuple[int, int, NDArray[np.int64]]:
    """The frames to take from a span of a file: (its first frame, the one after its last, the picks).

    The rule sees the span alone, which in seconds begins at its bound, not at its first frame: spans
    that follow each other are looked at as one. times: of all frames of the file, or up to one
    behind the span; otherwise as for `sample_times`.
    """
    first, end = span.frames(times, slack_of(tick_s))
    if first >= end:
        return first, first, np.empty(0, dtype=np.int64)
    start_s = float(times[first]) if span.start_s is None else span.start_s
    inside = times[first:end] - start_s
    lasts_s = max(_end_of(times, span, end, frame_s) - start_s - float(inside[-1]), _EXACT_S)
    goes_on = span.start_s is not None
    picks = sample_times(sampling, inside, frame_s=lasts_s, tick_s=tick_s, goes_on=goes_on)
    return first, end, first + picks


def cut_off_s(
    sampling: Sampling,
    times: NDArray[np.float64],
    span: Span,
    *,
    frame_s: float,
    tick_s: float = 0.0,
) -> float:
    """Seconds of a span from where one more step would have looked at it to its end; 0.0 if at none.

    The arguments are those of `sample_span`.
    """
    if rule_of(sampling).needs_length:
        return 0.0
    longer = replace(sampling, steps=sampling.steps + 1)
    _, end, picks = sample_span(longer, times, span, frame_s=frame_s, tick_s=tick_s)
    if len(picks) <= sampling.steps:
        return 0.0
    return max(0.0, _end_of(times, span, end, frame_s) - float(times[picks[-1]]))


def _end_of(times: NDArray[np.float64], span: Span, end: int, frame_s: float) -> float:
    """When the last frame of a span, which is the one before `end`, is shown no more."""
    end_s = float(times[-1]) + frame_s if end == len(times) else float(times[end])
    return end_s if span.end_s is None else min(end_s, span.end_s)


def slack_of(tick_s: float) -> float:
    """By how many seconds a frame's time may be off, in a container that counts in these units."""
    # Ticks coarser than 2 ms count frames and are exact.
    return (tick_s / 2 if tick_s <= _COARSE_S else 0.0) + _EXACT_S


def needs_length(sampling: Sampling) -> bool:
    """Whether the indices change with the clip's length once the clip is long enough.

    Where they do not, reading may stop at the last wanted frame.
    """
    return rule_of(sampling).needs_length or sampling.steps == 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """The moments at which a rule looks at a clip: `start_s + k · gap_s`.

    slack_s: a frame whose time is later than a moment by no more than this counts as shown then.
    """

    start_s: float
    gap_s: float
    slack_s: float = _EXACT_S

    @classmethod
    def every(cls, gap_s: float, *, offset: float, tick_s: float) -> Self:
        """Moments `gap_s` apart, the first after a share `offset` of the first gap."""
        return cls(start_s=offset * gap_s, gap_s=gap_s, slack_s=slack_of(tick_s))

    def before(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """How many moments lie before each time."""
        return np.maximum(np.ceil((times - self.slack_s - self.start_s) / self.gap_s), 0.0)

    def between(self, from_s: float, until_s: float) -> bool:
        """Whether a frame that is shown from one time until another is shown at a moment."""
        first, last = self.before(np.array([from_s, until_s]))
        return bool(last > first)


def _uniform(sampling: Sampling, n_frames: int) -> NDArray[np.int64]:
    """One frame from each of `steps` equal segments.

    `index[k] = floor((k + offset) · n_frames / steps)`; with offset 0.5 the segment's middle.
    A clip of at most `steps` frames gives all of them.
    """
    if n_frames <= sampling.steps:
        return np.arange(n_frames, dtype=np.int64)
    places = np.arange(sampling.steps, dtype=np.float64) + sampling.offset
    indices = np.floor(places * n_frames / sampling.steps).astype(np.int64)
    return np.minimum(indices, n_frames - 1)  # an offset just below 1 may be rounded up to it


def _regular(sampling: Sampling, n_frames: int, gap: int) -> NDArray[np.int64]:
    """Frames at a fixed distance, `gap` frames, from the clip's start.

    `index[k] = floor(start + k · gap)` while it is inside the clip, `start = offset · min(gap,
    n_frames)`. The gap is `stride` for the rule `stride` and 1 for `first`.
    """
    start = sampling.offset * min(gap, n_frames)
    picks = np.floor(start + np.arange(sampling.steps, dtype=np.float64) * gap)
    return picks[picks < n_frames].astype(np.int64)


def _every_second(sampling: Sampling, length_s: float, tick_s: float) -> Moments:
    """`fps` moments a second, the first `offset`/fps after the start, or that share of a short clip."""
    moments = Moments.every(1 / sampling.fps, offset=sampling.offset, tick_s=tick_s)
    return replace(moments, start_s=min(moments.start_s, sampling.offset * length_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingRule:
    """One rule, with everything that the readers ask of it; exactly one of `indices` and `moments`.

    indices: (sampling, frames in the clip ≥ 1) → the frames to take, (n ≤ steps,) int64.
    moments: (sampling, length of the clip s, tick s) → when a rule that goes by time looks at a clip;
        the length is infinite where it is not known yet.
    needs_length: whether the picks change with the clip's length, however long it is.
    gap: (sampling, fps) → frames from step to step on a video without an end; None where a rule has no
        pace of its own and spreads the steps over a clip.
    """

    indices: Callable[[Sampling, int], NDArray[np.int64]] | None = None
    moments: Callable[[Sampling, float, float], Moments] | None = None
    needs_length: bool = False
    gap: Callable[[Sampling, float], float] | None = None


RULES: dict[str, SamplingRule] = {
    "uniform": SamplingRule(indices=_uniform, needs_length=True),
    "stride": SamplingRule(
        indices=lambda sampling, n_frames: _regular(sampling, n_frames, sampling.stride),
        gap=lambda sampling, fps: float(sampling.stride),
    ),
    "first": SamplingRule(
        indices=lambda sampling, n_frames: _regular(sampling, n_frames, 1),
        gap=lambda sampling, fps: 1.0,
    ),
    "fps": SamplingRule(
        moments=_every_second, gap=lambda sampling, fps: max(1.0, fps / sampling.fps)
    ),
}
"""Every rule of `pipeline.spec.RULES`, by name."""


def rule_of(sampling: Sampling) -> SamplingRule:
    """The entry of a sampling's rule."""
    return RULES[sampling.rule]
