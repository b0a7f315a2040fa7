"""The running calls of an extractor: each hands its clips to the decoders and gathers their results."""

from __future__ import annotations

import functools
import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future

from pipeline.errors import UnreadableClip
from pipeline.features.backbones.family import Backbone
from pipeline.features.decoding.values import ClipFrames, Decoders, parts_of
from pipeline.features.filling import CnnThreads
from pipeline.features.jobs import Job
from pipeline.features.pending import PendingClip, Plans, Results
from pipeline.spec import Spec

_STOP_CHECK_S = 0.2


class Running:
    """What the calls of one extractor share. `news` guards it.

    streams, ahead_bytes: as `StreamsExtractor` takes them. decode_s: CPU seconds of the decoders so far.
    """

    def __init__(
        self, streams: Sequence[tuple[Spec, Backbone]], pool: Decoders, *, ahead_bytes: int
    ) -> None:
        self.specs = [spec for spec, _ in streams]
        self.plans = Plans.of_specs(self.specs)
        self.clip_bytes = sum(math.prod(plan.frames_shape) for plan in self.plans.distinct)
        ahead_clips = ahead_bytes * len(self.plans.distinct) / self.clip_bytes
        self.ahead_limit = round(self.clip_bytes * most_ahead(streams, ahead_clips))
        self.ahead_bytes = 0
        self.decode_s = 0.0
        self.pool = pool
        self.calls: list[Call] = []
        self.news = threading.Condition()
        self.cnns = [
            CnnThreads(cnn, more_expected=functools.partial(self._more_expected, number))
            for number, (_, cnn) in enumerate(streams)
        ]

    def changed(self) -> None:
        """Have every CNN look again whether frames are expected."""
        for cnn in self.cnns:
            cnn.changed()

    def may_submit(self, call: Call) -> bool:
        """First come, first served: the oldest call with clips left, while bytes are left."""
        first = next((c for c in self.calls if c.waiting), None)
        return first is call and self.ahead_bytes + self.clip_bytes <= self.ahead_limit

    def _more_expected(self, stream: int) -> bool:
        # Read without the lock: a stale answer costs one look more, `changed` follows every change.
        if not any(call.expected[stream] for call in self.calls):
            return False
        # While none is read and there is room for none, a batch must do with the frames that are there.
        is_room = self.ahead_bytes + self.clip_bytes <= self.ahead_limit
        return is_room or any(call.reading for call in self.calls)


def most_ahead(streams: Sequence[tuple[Spec, Backbone]], clips: float) -> float:
    """Clips that may be decoded, or being decoded, and hold their memory. Pure.

    clips: of those that have not reached the CNNs.
    """
    # Frames that a CNN reads where they lie keep their memory until it has.
    read = max(cnn.batch * cnn.concurrency / spec.sampling.steps for spec, cnn in streams)
    batch = max(cnn.batch / spec.sampling.steps for spec, cnn in streams)
    least = read + batch + 2
    # The memory ends where a batch does: else that of its end and beginning would be copied together.
    whole = max(cnn.batch // math.gcd(cnn.batch, spec.sampling.steps) for spec, cnn in streams)
    together = (clips + read) // whole * whole
    return together if together >= least else max(clips + read, least)


class Call:
    """One running `extract_streams`: hands clips out and gathers their results.

    expected: for each stream the clips that it waits for. Locks: `Running.news` may be held while a CNN's
    condition is taken, never the other way round, and never while the pool is called (its threads call
    back into `_read`).
    """

    def __init__(self, running: Running, clips: list[PendingClip]) -> None:
        self._of = running
        self._lock = running.news
        self._clips = clips
        order, parts = parts_of([clip.source for clip in clips], [clip.streams for clip in clips])
        for index, part in parts.items():
            clips[index].part = part
        self._ended: deque[tuple[PendingClip, UnreadableClip | None]] = deque()
        self._fatal: BaseException | None = None
        self.waiting = deque(clips[index] for index in order)
        self.reading = 0
        self.expected = [0] * len(running.specs)
        for clip in clips:
            self._expect(clip, 1)

    def run(self, on_clip: Callable[[Results], None], stop: threading.Event) -> list[Results]:
        results: dict[int, Results] = {}
        stopping, specs = False, self._of.specs
        while len(results) < len(self._clips):
            if stop.is_set() and not stopping:
                stopping = True
                settled = [(clip.index, clip.left_out(specs)) for clip in self.abandon()]
            else:
                self._submit()
                settled = [(clip.index, clip.results(specs, error)) for clip, error in self._wait()]
            for index, its in settled:
                results[index] = its
                on_clip(its)
        return [results[index] for index in range(len(self._clips))]

    def abandon(self) -> list[PendingClip]:
        """Drop every clip, or stream of it, of which no frame has reached a CNN; returns such clips."""
        with self._lock:
            dropped = [clip for clip in self._clips if clip.state in ("waiting", "reading")]
            queued = [clip for clip in self._clips if clip.state == "queued"]
            for clip in self.waiting:
                self._expect(clip, -1)
            self.waiting.clear()
            for clip in dropped:
                clip.state = "over"
            self._lock.notify_all()
        for clip in dropped:
            if (future := clip.future) is not None:
                future.cancel()
        for clip in queued:
            cnns = self._of.cnns
            out = {stream for stream, job in list(clip.jobs.items()) if cnns[stream].drop(job)}
            with self._lock:
                clip.stopped |= out
                clip.undone -= out
                if out and clip.state == "queued" and not clip.undone:
                    clip.state = "over"
                    if len(clip.stopped) == len(clip.streams):
                        dropped.append(clip)
                    else:
                        self._ended.append((clip, None))
        self._of.changed()
        return dropped

    def _expect(self, clip: PendingClip, count: int) -> None:
        for stream in clip.streams:
            self.expected[stream] += count

    def _submit(self) -> None:
        running = self._of
        while True:
            with self._lock:
                if not self.waiting or not running.may_submit(self):
                    return
                clip = self.waiting.popleft()
                clip.state = "reading"
                self.reading += 1
                running.ahead_bytes += running.clip_bytes
                if not self.waiting:
                    # The next call's turn.
                    self._lock.notify_all()
            try:
                source, plans = clip.source, running.plans.needed(clip.streams)
                some = [plans] if len(plans) < len(running.plans.distinct) else []
                clip.future = running.pool.submit(source.path, source.size_bytes, clip.part, *some)
            except BaseException:
                with self._lock:
                    self.reading -= 1
                    self._expect(clip, -1)
                    running.ahead_bytes -= running.clip_bytes
                raise
            clip.future.add_done_callback(functools.partial(self._read, clip))

    def _wait(self) -> list[tuple[PendingClip, UnreadableClip | None]]:
        """The clips that have ended since the last look; waits a moment where there are none."""
        with self._lock:
            idle = not self._ended and self._fatal is None
            if idle and not (self.waiting and self._of.may_submit(self)):
                self._lock.wait(_STOP_CHECK_S)
            if self._fatal is not None:
                raise self._fatal
            ended = list(self._ended)
            self._ended.clear()
        return ended

    def _read(self, clip: PendingClip, future: Future[ClipFrames]) -> None:
        """A clip's future is done (called from the pool's threads, or where it is cancelled)."""
        frames, error = None, None
        try:
            frames = future.result()
        except (Exception, CancelledError) as caught:
            error = caught
        if frames is not None and not all(map(len, (frames, *frames.further))):
            for each in (frames, *frames.further):
                each.release()
            frames, error = None, UnreadableClip("no_frames", "the decoder gave no frame")
        running = self._of
        # The future would hold the frames for as long as the call lasts.
        clip.future = None
        with self._lock:
            self.reading -= 1
            self._expect(clip, -1)
            wanted = clip.state == "reading"
            queued = wanted and frames is not None
            if frames is not None:
                running.decode_s += frames.decode_s
                clip.frames, clip.lent = running.plans.frames_of(clip.streams, frames)
            if queued:
                self._queue(clip)
            elif wanted:
                clip.state = "over"
                if isinstance(error, UnreadableClip):
                    self._ended.append((clip, error))
                else:
                    self._fatal = self._fatal or error
                self._lock.notify_all()
        if not queued:
            self._frames_read(clip)
        running.changed()

    def _queue(self, clip: PendingClip) -> None:
        """Put the clip's frames behind those that wait for the CNN of each stream."""
        clip.state = "queued"
        clip.unread, clip.undone = len(clip.streams), set(clip.streams)
        for stream in clip.streams:
            frames = clip.frames[stream]
            room = clip.room(stream, self._of.specs[stream])
            clip.jobs[stream] = Job.of(
                frames,
                room[: len(frames)],
                on_read=functools.partial(self._stream_read, clip),
                on_done=functools.partial(self._features_done, clip, stream),
            )
        for stream, job in clip.jobs.items():
            self._of.cnns[stream].put(job)

    def _stream_read(self, clip: PendingClip) -> None:
        with self._lock:
            clip.unread -= 1
            last = not clip.unread
        if last:
            self._frames_read(clip)

    def _frames_read(self, clip: PendingClip) -> None:
        """A clip's frames are needed no more: give their memory and its share of bytes back."""
        clip.give_back()
        with self._lock:
            self._of.ahead_bytes -= self._of.clip_bytes
            if any(call.waiting for call in self._of.calls):
                self._lock.notify_all()

    def _features_done(self, clip: PendingClip, stream: int, error: BaseException | None) -> None:
        with self._lock:
            if clip.state == "queued" and stream in clip.undone:
                clip.undone.discard(stream)
                if error is not None:
                    clip.state = "over"
                    if self._fatal is None:
                        self._fatal = RuntimeError(f"the CNN failed on a batch of frames: {error}")
                        self._fatal.__cause__ = error
                elif not clip.undone:
                    clip.state = "over"
                    self._ended.append((clip, None))
            self._lock.notify_all()
