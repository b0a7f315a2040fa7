"""Read a clip from front to back and keep the frames that one plan wants, or several do."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.features.decoding import disposable
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


def read_through(
    video: Video, each: Sequence[Kept], path: str, *, whole: bool = True
) -> list[Windows]:
    """Keep the wanted frames of an open clip for each plan, in one decoding; returns what they are.

    whole: every frame is decoded. Otherwise disposable ones are left out where each plan looks at the
    whole clip, as `disposable.frames_of` does, which raises `NOT_EXACT` where that turns out wrong.

    A header's count only decides which frames the first pass keeps. The rule is then applied to
    the frames that came, and a second pass fetches those that it asks for and the first did not
    keep. Where the rule does not depend on the clip's length, reading stops at the last wanted
    frame.
    """
    takers = [_taker(video, kept) for kept in each]
    frames: Iterable[Frame] = video
    by_index = [t for t in takers if isinstance(t, _ByIndex) and needs_length(t.kept.plan.sampling)]
    if not whole and len(by_index) == len(takers):
        wanted_by_any = set().union(*(taker.wanted for taker in by_index))
        frames = disposable.frames_of(video, wanted_by_any, each[0].on_progress)
    _read(frames, takers)
    wanted = [kept.wanted(video) for kept in each]
    again: dict[int, _ByIndex] = {}
    with contextlib.ExitStack() as opened:
        for number, (kept, windows) in enumerate(zip(each, wanted, strict=True)):
            absent = [index for index in windows.frames.tolist() if index not in kept.pictures]
            if absent:
                if not again:
                    second = opened.enter_context(Video(path, kept.plan.max_pixels))
                rest = replace(kept, room=kept.room[len(kept.pictures) :], pictures={}, times=[])
                again[number] = _ByIndex(second, rest, absent, stop_early=True)
        if again:
            _read(second, list(again.values()))
    for number, taker in again.items():
        kept = each[number]
        if not kept.pictures:
            kept.room = taker.kept.room
        kept.pictures |= taker.kept.pictures
        # A file that changes between the passes may have lost frames.
        wanted[number] = wanted[number].within(list(kept.pictures))
    return wanted


_ENDLESS = 1 << 62


def _taker(video: Video, kept: Kept) -> _ByIndex | _ByTime:
    sampling = kept.plan.sampling
    stop_early = not needs_length(sampling)
    if (moments_of := rule_of(sampling).moments) is not None:
        moments = moments_of(sampling, math.inf, video.tick_s)
        return _ByTime(video, kept, moments, stop_early=stop_early)
    guess = (_ENDLESS if stop_early else video.expected()) or sampling.steps
    guessed = kept.around(sample_indices(sampling, guess), guess, video)
    return _ByIndex(video, kept, guessed.frames.tolist(), stop_early=stop_early)


def _read(frames: Iterable[Frame], takers: Sequence[_ByIndex | _ByTime]) -> None:
    """Show each frame to every taker that is not done; until all are, or to the clip's end."""
    going = list(takers)
    for frame in frames:
        done = [taker for taker in going if taker.see(frame)]
        if done:
            going = [taker for taker in going if taker not in done]
            if not going:
                return
    for taker in going:
        taker.end()


class _ByIndex:
    """Keeps frames by their number."""

    def __init__(
        self, video: Video, kept: Kept, indices: Iterable[int], *, stop_early: bool
    ) -> None:
        self.kept, self._video = kept, video
        self.wanted = set(indices)
        self._last = max(self.wanted, default=-1) if stop_early else _ENDLESS

    def see(self, frame: Frame) -> bool:
        """Keep the frame if it is wanted; whether no later one is."""
        self.kept.passed(frame)
        if frame.index in self.wanted:
            self.kept.keep(self._video, frame)
        return frame.index >= self._last

    def end(self) -> None:
        """The clip has ended."""
        self.kept.ended = True


class _ByTime:
    """Keeps every frame that is shown at a moment; that is known once the next frame's time is.

    Of a window's other frames those that are still to come are kept with it.
    """

    def __init__(self, video: Video, kept: Kept, moments: Moments, *, stop_early: bool) -> None:
        self.kept, self._video, self._moments = kept, video, moments
        self._stop_early = stop_early
        self._before: Frame | None = None
        self._steps, self._due = 0, {-1}

    def see(self, frame: Frame) -> bool:
        """Keep the frame before this one, or this one, if it is wanted; whether no later one is."""
        kept, video, before = self.kept, self._video, self._before
        kept.passed(frame)
        if before is not None and self._moments.between(before.time_s, frame.time_s):
            self._steps += 1
            needed = kept.around(np.array([before.index]), _ENDLESS, video).frames.tolist()
            self._due |= set(needed)
            if before.index in self._due:
                kept.keep(video, before)
        if frame.index in self._due:
            kept.keep(video, frame)
        self._before = replace(frame)
        whole = self._stop_early and self._steps == kept.plan.sampling.steps
        return whole and max(self._due) <= frame.index

    def end(self) -> None:
        """The clip has ended: its last frame is shown until then."""
        self.kept.ended = True
        if (before := self._before) is not None:
            end = before.time_s + self._video.frame_s + self._moments.slack_s
            if self._moments.between(before.time_s, end):
                self.kept.keep(self._video, before)
