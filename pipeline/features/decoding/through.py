"""Read a clip from front to back and keep the wanted frames."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.features.decoding.fit import fitted
from pipeline.features.decoding.pictures import Picture
from pipeline.features.decoding.values import FramePlan
from pipeline.features.decoding.video import Frame, Video
from pipeline.features.sampling import (
    Moments,
    needs_length,
    rule_of,
    sample_indices,
    sample_times,
)

OnProgress = Callable[[], None]


@dataclass(slots=True)
class Kept:
    """The frames that were kept so far.

    pictures: fitted RGB by frame index; the first `len(room)` of them lie in `room`, in the order
    in which they came. times: seconds of every frame that was read. ended: the clip's end was
    reached.
    """

    room: NDArray[np.uint8]
    pictures: dict[int, Picture] = field(default_factory=dict)
    times: list[float] = field(default_factory=list)
    ended: bool = False

    def keep(self, video: Video, frame: Frame, plan: FramePlan) -> None:
        """Fit the frame's picture and keep it."""
        place = len(self.pictures)
        out = self.room[place] if place < len(self.room) else None
        self.pictures[frame.index] = fitted(video, frame, plan, out)


def read_through(
    video: Video,
    path: str,
    plan: FramePlan,
    room: NDArray[np.uint8],
    on_progress: OnProgress,
) -> tuple[Kept, NDArray[np.int64]]:
    """The wanted frames of an open clip and their indices, ascending.

    A header's count only decides which frames the first pass keeps. The rule is then applied to
    the frames that came, and a second pass fetches those that it asks for and the first did not
    keep. Where the rule does not depend on the clip's length, reading stops at the last wanted
    frame.
    """
    kept = Kept(room)
    stop_early = not needs_length(plan.sampling)
    moments_of = rule_of(plan.sampling).moments
    if moments_of is not None:
        moments = moments_of(plan.sampling, math.inf, video.tick_s)
        _keep_by_time(video, moments, plan, kept, on_progress, stop_early=stop_early)
    else:
        guess = _ENDLESS if stop_early else video.expected()
        guessed = sample_indices(plan.sampling, guess or plan.sampling.steps)
        _keep_by_index(video, guessed, plan, kept, on_progress, stop_early=stop_early)
    wanted = wanted_of(plan, kept.times, video)
    absent = [index for index in wanted.tolist() if index not in kept.pictures]
    if absent:
        again = Kept(kept.room[len(kept.pictures) :])
        with Video(path, plan.max_pixels) as second:
            _keep_by_index(second, np.array(absent), plan, again, on_progress, stop_early=True)
        kept.pictures |= again.pictures
        # A file that changes between the passes may have lost frames.
        wanted = np.array([i for i in wanted.tolist() if i in kept.pictures], np.int64)
    return kept, wanted


_ENDLESS = 1 << 62


def wanted_of(plan: FramePlan, times: list[float], video: Video) -> NDArray[np.int64]:
    """The frames that the plan's rule takes of a clip whose frames were shown at `times`."""
    seconds = np.array(times)
    return sample_times(plan.sampling, seconds, frame_s=video.frame_s, tick_s=video.tick_s)


def _keep_by_index(
    video: Video,
    indices: NDArray[np.int64],
    plan: FramePlan,
    kept: Kept,
    on_progress: OnProgress,
    *,
    stop_early: bool,
) -> None:
    wanted = set(indices.tolist())
    last = max(wanted, default=-1)
    for frame in video:
        on_progress()
        kept.times.append(frame.time_s)
        if frame.index in wanted:
            kept.keep(video, frame, plan)
        if stop_early and frame.index >= last:
            return
    kept.ended = True


def _keep_by_time(
    video: Video,
    moments: Moments,
    plan: FramePlan,
    kept: Kept,
    on_progress: OnProgress,
    *,
    stop_early: bool,
) -> None:
    """Keep every frame that is shown at a moment; that is known once the next frame's time is."""
    before: Frame | None = None
    for frame in video:
        on_progress()
        kept.times.append(frame.time_s)
        if before is not None and moments.between(before.time_s, frame.time_s):
            kept.keep(video, before, plan)
            if stop_early and len(kept.pictures) == plan.sampling.steps:
                return
        before = frame.held()
    kept.ended = True
    if before is not None:
        end = before.time_s + video.frame_s + moments.slack_s
        if moments.between(before.time_s, end):
            kept.keep(video, before, plan)
