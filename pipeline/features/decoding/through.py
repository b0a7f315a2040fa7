"""Read a clip from front to back and keep the wanted frames."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.features.decoding.pictures import Picture
from pipeline.features.decoding.values import FramePlan
from pipeline.features.decoding.video import Frame, Video
from pipeline.features.sampling import Moments, needs_length, rule_of, sample_indices, sample_times
from pipeline.features.windows import Windows, windows_of

OnProgress = Callable[[], None]


@dataclass(slots=True)
class Kept:
    """What a plan asks of a clip, and the frames that were kept so far.

    on_progress: called for every frame that is decoded. pictures: fitted RGB by frame index; the first
    `len(room)` of them lie in `room`, in the order in which they came. sized: whether `room` has the
    shape of the pictures, which of the fit "whole" the first one says. times: seconds of every frame
    that was read. ended: the clip's end was reached.
    """

    plan: FramePlan
    room: NDArray[np.uint8]
    on_progress: OnProgress
    pictures: dict[int, Picture] = field(default_factory=dict)
    times: list[float] = field(default_factory=list)
    ended: bool = False
    sized: bool = False

    def keep(self, video: Video, frame: Frame) -> None:
        """Fit the frame's picture and keep it, unless it is kept already."""
        if frame.index in self.pictures:
            return
        place = len(self.pictures)
        if self.plan.fit == "whole" and not self.sized:
            first = video.fitted(frame, self.plan)
            self.room = self.room.reshape(-1)[: len(self.room) * first.size]
            self.room = self.room.reshape(-1, *first.shape)
            self.sized = True
        out = (
            self.room[place] if place < len(self.room) else np.empty(self.room.shape[1:], np.uint8)
        )
        self.pictures[frame.index] = video.fitted(frame, self.plan, out)

    def passed(self, frame: Frame) -> None:
        """Count a frame that was read."""
        self.on_progress()
        self.times.append(frame.time_s)

    def wanted(self, video: Video) -> Windows:
        """What the plan's rule takes of the clip, whose frames were shown at `times`."""
        frame_s, tick_s = video.frame_s, video.tick_s
        sampled = sample_times(
            self.plan.sampling, np.array(self.times), frame_s=frame_s, tick_s=tick_s
        )
        return self.around(sampled, len(self.times), video)

    def around(self, sampled: NDArray[np.int64], n_frames: int, video: Video) -> Windows:
        """The frames that the steps at these frames need, of a clip with `n_frames`."""
        return windows_of(self.plan, sampled, n_frames, fps=video.fps or 1 / video.frame_s)


def read_through(video: Video, kept: Kept, path: str) -> Windows:
    """Keep the wanted frames of an open clip; returns what they are.

    A header's count only decides which frames the first pass keeps. The rule is then applied to
    the frames that came, and a second pass fetches those that it asks for and the first did not
    keep. Where the rule does not depend on the clip's length, reading stops at the last wanted
    frame.
    """
    sampling = kept.plan.sampling
    stop_early = not needs_length(sampling)
    if (moments_of := rule_of(sampling).moments) is not None:
        moments = moments_of(sampling, math.inf, video.tick_s)
        _keep_by_time(video, kept, moments, stop_early=stop_early)
    else:
        guess = (_ENDLESS if stop_early else video.expected()) or sampling.steps
        guessed = kept.around(sample_indices(sampling, guess), guess, video)
        _keep_by_index(video, kept, guessed.frames.tolist(), stop_early=stop_early)
    wanted = kept.wanted(video)
    absent = [index for index in wanted.frames.tolist() if index not in kept.pictures]
    if absent:
        again = replace(kept, room=kept.room[len(kept.pictures) :], pictures={}, times=[])
        with Video(path, kept.plan.max_pixels) as second:
            _keep_by_index(second, again, absent, stop_early=True)
        if not kept.pictures:
            kept.room = again.room
        kept.pictures |= again.pictures
        # A file that changes between the passes may have lost frames.
        wanted = wanted.within(list(kept.pictures))
    return wanted


_ENDLESS = 1 << 62


def _keep_by_index(video: Video, kept: Kept, indices: Iterable[int], *, stop_early: bool) -> None:
    wanted = set(indices)
    last = max(wanted, default=-1)
    for frame in video:
        kept.passed(frame)
        if frame.index in wanted:
            kept.keep(video, frame)
        if stop_early and frame.index >= last:
            return
    kept.ended = True


def _keep_by_time(video: Video, kept: Kept, moments: Moments, *, stop_early: bool) -> None:
    """Keep every frame that is shown at a moment; that is known once the next frame's time is.

    Of a window's other frames those that are still to come are kept with it.
    """
    before: Frame | None = None
    steps, due = 0, {-1}
    for frame in video:
        kept.passed(frame)
        if before is not None and moments.between(before.time_s, frame.time_s):
            steps += 1
            needed = kept.around(np.array([before.index]), _ENDLESS, video).frames.tolist()
            due |= set(needed)
            if before.index in due:
                kept.keep(video, before)
        if frame.index in due:
            kept.keep(video, frame)
        if stop_early and steps == kept.plan.sampling.steps and max(due) <= frame.index:
            return
        before = replace(frame)
    kept.ended = True
    if before is not None:
        end = before.time_s + video.frame_s + moments.slack_s
        if moments.between(before.time_s, end):
            kept.keep(video, before)
