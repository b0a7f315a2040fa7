"""One pass through a video of any length: which frames become steps, and the pictures of each."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.features.decoding.pictures import Picture
from pipeline.features.decoding.values import FramePlan
from pipeline.features.decoding.video import Frame, Video
from pipeline.features.sampling import Moments, rule_of
from pipeline.features.windows import span_of, windows_of
from pipeline.spec import Sampling

Batch = tuple[NDArray[np.uint8]] | tuple[NDArray[np.uint8], NDArray[np.float64]]
"""What a backbone is called with: (n, side, side, 3) RGB; or (n, window, …) and the gaps in seconds."""

_ENDLESS = 1 << 62


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How a video is walked through: `gap` frames from step to step, `steps` of them in a window.

    counted: the rule counts frames; the others go by time, in which a `gap` is that many frames of
    the video's nominal rate, and where the video shows fewer a window has fewer steps.
    """

    gap: float
    steps: int
    counted: bool = False

    @classmethod
    def of(cls, sampling: Sampling, fps: float, window_s: float) -> Pace:
        """The pace at which a clip of `window_s` seconds would have been sampled.

        A rule without a pace of its own (`uniform`) spreads the clip's steps over the window (all
        frames, where it has fewer); with one, `window_s` 0 is the rule's full length.
        """
        rule = rule_of(sampling)
        if rule.gap is None:
            frames = max(1, round(window_s * fps))
            return cls(gap=max(1.0, frames / sampling.steps), steps=min(sampling.steps, frames))
        gap = rule.gap(sampling, fps)
        most = round(window_s * fps / gap) if window_s else sampling.steps
        steps = max(1, min(sampling.steps, most))
        return cls(gap=gap, steps=steps, counted=rule.moments is None)

    def index(self, step: int, offset: float) -> int:
        """The frame of a step: floor((step + offset) · gap), as within a clip."""
        return int((step + offset) * self.gap)


class Walk:
    """One pass through an open video: `times` (seconds) of the frames taken, in batches."""

    def __init__(self, video: Video, plan: FramePlan, pace: Pace) -> None:
        self._video, self._plan, self._pace = video, plan, pace
        self._gathered: _Gathered | None = None
        self.times: list[float] = []
        self.decoded = 0
        self.duration_s = 0.0

    def batches(self, size: int) -> Iterator[Batch]:
        """At most `size` steps at a time, until the video ends."""
        steps = self._windows() if self._plan.window > 1 else self._frames()
        while batch := list(itertools.islice(steps, size)):
            pictures, gaps_s = zip(*batch, strict=True)
            frames = np.stack(pictures)
            yield (frames, np.array(gaps_s)) if self._plan.window > 1 else (frames,)

    def _frames(self) -> Iterator[tuple[Picture, float]]:
        for frame in self._taken():
            self.times.append(frame.time_s)
            yield self._video.fitted(frame, self._plan), 0.0

    def _windows(self) -> Iterator[tuple[Picture, float]]:
        """(window, …) pictures of each step, and the seconds from one to the next."""
        gathered = self._gathered = _Gathered(self._plan, self._video)
        for frame in self._taken():
            self.times.append(frame.time_s)
            gathered.want(frame.index)
            yield from gathered.complete()
        yield from gathered.complete(n_frames=self.decoded)

    def _taken(self) -> Iterator[Frame]:
        """The frames at the pace; of a video shorter than the first step its last frame."""
        pace, offset = self._pace, self._plan.sampling.offset
        gap_s = pace.gap * self._video.frame_s
        moments = Moments.every(gap_s, offset=offset, tick_s=self._video.tick_s)
        taken = 0
        before: Frame | None = None
        for frame in self._video:
            self.decoded += 1
            self.duration_s = self._video.end_s
            if self._gathered is not None:
                self._gathered.see(frame)
            if pace.counted:
                if frame.index == pace.index(taken, offset):
                    taken += 1
                    yield frame
            elif before is not None and moments.between(before.time_s, frame.time_s):
                taken += 1
                yield before
            before = replace(frame)
        if before is None:
            return
        end_s = self.duration_s + moments.slack_s
        if not taken or (not pace.counted and moments.between(before.time_s, end_s)):
            yield before


class _Gathered:
    """The frames of each step's window, gathered from frames that are read once and in order."""

    def __init__(self, plan: FramePlan, video: Video) -> None:
        self._plan, self._video = plan, video
        self._fps = video.fps or 1 / video.frame_s
        # As many as a window spans: the last ones are those of a window that is moved inside.
        self._recent: deque[tuple[int, float, Picture]] = deque(maxlen=span_of(plan, self._fps))
        self._waiting: deque[int] = deque()
        self._made: deque[tuple[Picture, float]] = deque()

    def see(self, frame: Frame) -> None:
        """Keep a frame for the windows that it belongs to."""
        shape = self._recent[0][2].shape if self._recent else None
        out = None if shape is None else np.empty(shape, np.uint8)
        picture = self._video.fitted(frame, self._plan, out)
        self._recent.append((frame.index, frame.time_s, picture))
        self._make(_ENDLESS)

    def want(self, index: int) -> None:
        """A step is at this frame, which has been seen."""
        self._waiting.append(index)
        self._make(_ENDLESS)

    def complete(self, n_frames: int = 0) -> Iterator[tuple[Picture, float]]:
        """The windows that are whole; with the number of frames of a video that has ended, the rest."""
        if n_frames:
            self._make(n_frames)
        while self._made:
            yield self._made.popleft()

    def _make(self, n_frames: int) -> None:
        while self._waiting:
            steps = np.array([self._waiting[0]])
            (window,) = windows_of(self._plan, steps, n_frames, fps=self._fps).windows.tolist()
            if not self._recent or window[-1] > self._recent[-1][0]:
                return
            first = self._recent[0][0]
            parts = [self._recent[index - first] for index in window]
            gap_s = (parts[-1][1] - parts[0][1]) / (len(parts) - 1)
            self._made.append((np.stack([picture for _, _, picture in parts]), gap_s))
            self._waiting.popleft()
