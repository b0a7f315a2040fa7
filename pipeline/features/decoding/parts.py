"""Several parts of one file in one pass over it: opened once, every frame decoded once at most.

A long file in which frames can be sought exactly (`seeking`) is sought through: the frames of all parts
are known before the first is decoded. Any other is read from front to back: which frames a part will
want is guessed by the rate, the rule is applied to those that came; where the guess missed, the file is
read once more by the times of its packets. Frames that others want are kept; by ends these are fewest.
"""

from __future__ import annotations

import itertools
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UnreadableClip
from pipeline.features.decoding.fitted import Fitted, drop_from_each, keep_in_each
from pipeline.features.decoding.lengths import packet_times, times_by_rate
from pipeline.features.decoding.packets import NOT_EXACT, may_be_sought, packets_of
from pipeline.features.decoding.reading import check_file
from pipeline.features.decoding.seeking import LONG_FRAMES, Sought
from pipeline.features.decoding.through import OnProgress
from pipeline.features.decoding.values import ClipFrames, FramePlan
from pipeline.features.decoding.video import Frame, Video
from pipeline.features.sampling import cut_off_s, sample_span, slack_of
from pipeline.features.windows import Windows, windows_of
from pipeline.spans import Span

MOST_KEPT_BYTES = 256 << 20
"""Of pictures that are kept for other parts; what does not fit is decoded again when it is wanted."""


class PartReader:
    """The parts `spans` of the file at `path`; a context manager. `left`: how many are still to be read.

    plan: which frames, and how they are fitted. further: plans that take the same frames, fitted in other
    ways (`FramePlan.taking`). on_progress: called for every packet that is listed and every frame that is
    decoded.
    Raises `UnreadableClip` where the file cannot be opened.
    """

    def __init__(
        self,
        path: str,
        plan: FramePlan,
        spans: Sequence[Span],
        on_progress: OnProgress = lambda: None,
        *,
        further: Sequence[FramePlan] = (),
    ) -> None:
        self._began = time.thread_time()
        self._path, self._plan, self._spans = os.path.abspath(path), plan, spans
        self._on_progress = on_progress
        check_file(self._path)
        self._unread = set(range(len(spans)))
        self._fitted = [Fitted(each) for each in (plan, *further)]
        self._places: dict[int, int] = {}  # in the room, of the part that is read
        self._times: list[float] | NDArray[np.float64] = []
        self._ended = False
        self._sought: Sought | None = None
        self._frames: Iterator[Frame] = iter(())
        self._by_rate = False
        self._video = self._new_video()
        try:
            self._open()
        except BaseException:
            self._video.close()
            raise

    def read(self, number: int, out: NDArray[np.uint8] | None = None) -> ClipFrames:
        """The sampled frames of one part; indices and times are those of the whole file.

        out: `plan.frames_shape` uint8 to write the frames into, else fresh.
        Raises `UnreadableClip`: `empty_segment` where the file has no frame in it.
        """
        return self.read_each(number, [out] * len(self._fitted))[0]

    def read_each(self, number: int, rooms: Sequence[NDArray[np.uint8] | None]) -> list[ClipFrames]:
        """The same by each plan. rooms: of each. The seconds of decoding are the first one's."""
        try:
            return self._read(number, rooms)
        except NOT_EXACT:  # it is read from its first frame instead
            known = np.asarray(self._times)
            self._reopen()
            self._expect(known)
        return self._read(number, rooms)

    @property
    def left(self) -> int:
        return len(self._unread)

    def close(self) -> None:
        self._frames = iter(())
        self._video.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _open(self) -> None:
        if self._video.expected() >= LONG_FRAMES and may_be_sought(self._video):
            if (packets := packets_of(self._path, self._video, self._on_progress)) is not None:
                self._times, self._ended = packets.seconds(self._video), True
                self._expect(self._times)
                self._sought = Sought(self._video, packets, self._on_progress, self._order)
                return
            self._reopen()
        self._frames, self._by_rate = self._video.__iter__(), True
        self._expect(times_by_rate(self._video, self._spans))

    def _read_by_packets(self, number: int) -> None:
        """Read to a part's end from the file's first frame: its rate told wrong frames."""
        self._reopen()
        times = packet_times(self._video, self._on_progress)
        self._reopen()
        self._expect(times)
        self._read_on(number)

    def _reopen(self) -> None:
        self._video.close()
        self._video = self._new_video()
        self._sought, self._times, self._ended, self._by_rate = None, [], False, False
        for fitted in self._fitted:
            fitted.clear()
        self._places = {}
        self._frames = self._video.__iter__()

    def _new_video(self) -> Video:
        video = Video(self._path, self._plan.max_pixels)
        video.is_shared = len(self._fitted) > 1
        return video

    def _expect(self, times: NDArray[np.float64]) -> None:
        """Note the frames that each part that is left will want, if these are the times."""
        self._expected = {i: self._wanted(i, times) for i in sorted(self._unread)}
        each = self._expected.items()
        self._frames_of = {number: wanted.frames.tolist() for number, (*_, wanted) in each}
        self._due = Counter(itertools.chain.from_iterable(self._frames_of.values()))
        self._order = np.array(sorted(self._due), dtype=np.int64)
        self._next = 0

    def _wanted(self, number: int, times: NDArray[np.float64]) -> tuple[int, int, Windows]:
        """A part's first frame, the one after its last, and what its steps need."""
        video, plan = self._video, self._plan
        first, end, picks = sample_span(
            plan.sampling, times, self._spans[number], frame_s=video.frame_s, tick_s=video.tick_s
        )
        fps = video.fps or 1 / video.frame_s
        return first, end, windows_of(plan, picks - first, end - first, fps=fps).behind(first)

    def _read(self, number: int, rooms: Sequence[NDArray[np.uint8] | None]) -> list[ClipFrames]:
        began, self._began = self._began or time.thread_time(), 0.0
        failed = {index for fitted in self._fitted for index in fitted.in_room}
        drop_from_each(self._fitted, failed)  # others write there by now
        self._places = {}
        for fitted, room in zip(self._fitted, rooms, strict=True):
            fitted.begin(room)
        if self._sought is not None:
            self._seek_on(self._sought, number)
        else:
            self._read_on(number)
        times = np.asarray(self._times)
        first, end, wanted = self._expected[number]  # already, where every time is known
        if self._sought is None:
            first, end, wanted = self._wanted(number, times)
        missed = set(wanted.frames.tolist()).difference(self._frames_of[number])
        if self._by_rate and missed and len(self._unread) > 1:
            self._read_by_packets(number)
            times = np.asarray(self._times)
            first, end, wanted = self._wanted(number, times)
        kept = self._fitted[0]
        absent = [index for index in wanted.frames.tolist() if index not in kept]
        for frame, video in self._again(absent):
            self._keep(frame, video, always=True)
        wanted = wanted.within(kept.indices)
        if not len(wanted.steps):
            self._done(number)
            raise self._nothing(number)
        frames = [fitted.put(wanted.frames.tolist()) for fitted in self._fitted]
        video = self._video
        span, clock = self._spans[number], (video.frame_s, video.tick_s)
        cut_s = cut_off_s(self._plan.sampling, times, span, frame_s=clock[0], tick_s=clock[1])
        reason = self._warning(number, wanted, cut_off=cut_s > 0)
        declared = video.declared if span.whole else 0
        facts = video.facts(declared=declared, decoded=end - first, cut_off_s=cut_s)
        self._done(number)
        clip = ClipFrames(
            frames=frames[0],
            frame_index=wanted.steps.astype(np.int32),
            timestamp=times[wanted.steps].astype(np.float32),
            windows=wanted.places if self._plan.window > 1 else None,
            gaps_s=wanted.gaps_s(times) if self._plan.window > 1 else None,
            **facts.facts,
            reason=reason,
            decode_s=time.thread_time() - began,
        )
        return [clip, *(replace(clip, frames=each, decode_s=0.0) for each in frames[1:])]

    def _seek_on(self, sought: Sought, number: int) -> None:
        """Decode every frame that is wanted, by whichever part, up to this part's last."""
        if not (mine := self._frames_of[number]):
            return
        self._places = {index: place for place, index in enumerate(mine)}
        stop = int(np.searchsorted(self._order, mine[-1], side="right"))
        for index in self._order[self._next : stop].tolist():
            self._next += 1
            if self._due[index]:
                frame = Frame(index, float(self._times[index]), sought.frame(index))
                self._keep(frame, self._video, always=index in self._places)

    def _read_on(self, number: int) -> None:
        """Read until a frame that lies behind the part, or the end of the file."""
        span, slack_s = self._spans[number], slack_of(self._video.tick_s)
        mine = set(self._frames_of[number])
        times = self._times
        assert isinstance(times, list)
        while not self._ended:
            if times and span.ends_before(len(times) - 1, times[-1], slack_s):
                return
            frame = next(self._frames, None)
            self._on_progress()
            if frame is None:
                self._ended = True
                break
            times.append(frame.time_s)
            if self._due[frame.index]:
                self._keep(frame, self._video, always=frame.index in mine)

    def _again(self, indices: Sequence[int]) -> Iterator[tuple[Frame, Video]]:
        """Frames that have gone by, ascending, with the video that has each."""
        if self._sought is not None:
            for index in indices:
                raw = self._sought.frame(index)
                yield Frame(index, float(self._times[index]), raw), self._video
        elif indices:
            wanted = set(indices)
            with self._new_video() as second:
                for frame in second:
                    self._on_progress()
                    if frame.index in wanted:
                        yield frame, second
                    if frame.index >= indices[-1]:
                        return

    def _keep(self, frame: Frame, video: Video, *, always: bool) -> None:
        """Fit a frame's picture and keep it. always: even where there is no room for more."""
        kept_bytes = sum(fitted.kept_bytes for fitted in self._fitted)
        if frame.index in self._fitted[0] or not (always or kept_bytes < MOST_KEPT_BYTES):
            return
        try:
            keep_in_each(self._fitted, frame, video, self._places.get(frame.index))
        except UnreadableClip:
            if always:  # else it is another part's, which will be told of it
                raise

    def _done(self, number: int) -> None:
        """Drop the pictures that no other part is expected to want."""
        if number in self._unread:
            self._unread.discard(number)
            self._due.subtract(self._frames_of[number])
        over = [index for index in self._fitted[0].indices if self._due[index] <= 0]
        drop_from_each(self._fitted, over)
        for fitted in self._fitted:
            fitted.leave_room()
        self._places = {}

    def _nothing(self, number: int) -> UnreadableClip:
        """Why a part has no frame."""
        if not len(self._times):
            return UnreadableClip("no_frames", "the file opens, but no frame of it decodes")
        known = f"the file has {len(self._times)} frames, the last at {self._times[-1]:.3f} s"
        detail = f"no frame lies in {self._spans[number].fragment}: {known}"
        return UnreadableClip("empty_segment", detail)

    def _warning(self, number: int, wanted: Windows, *, cut_off: bool) -> str:
        """The warning that a part carries, "" for none."""
        span, video, count = self._spans[number], self._video, len(self._times)
        if self._ended:
            end_s = self._times[-1] + video.frame_s if self._sought is not None else video.end_s
            past = span.end_s is not None and span.end_s > end_s + video.frame_s / 2
            past |= span.end_frame is not None and span.end_frame > count
            open_end = span.end_s is None and span.end_frame is None
            if past or (open_end and video.falls_short(count)):
                return "fewer_frames"
        if video.clock.mended:
            return "times_mended"
        if cut_off:
            return "cut_off"
        return "short_window" if wanted.short else ""
