"""A batch of clips → fixed-length, masked sequences of features.

Decoders (other processes) and the CNN (a few threads) run at once. Clips are handed to the decoders
only as far ahead as a bounded number of bytes; their frames fill CNN batches across clips and
across concurrent calls, so that one call's end is filled up by the next one's beginning.
"""

from __future__ import annotations

import functools
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UnreadableClip
from pipeline.features.backbones.family import Backbone
from pipeline.features.decoding.values import ClipFrames, ClipSource, Decoders, Part, parts_of
from pipeline.features.filling import CnnThreads, Job
from pipeline.features.sequences import ClipResult, empty_result, ready_result
from pipeline.spec import Spec

__all__ = ["ClipResult", "ClipSource", "Decoders", "Extractor"]

_STOP_CHECK_S = 0.2
_NO_FRAMES = np.empty((0, 0, 0, 3), np.uint8)


class Extractor:
    """Turns batches of clips into sequences; one per worker process, shared by its threads.

    `extract` may run in several threads at once. `ahead_bytes` bounds the frames that are decoded
    or being decoded and have not reached the CNN; it is raised to what keeps every CNN thread fed.
    A context manager: leaving it ends the CNN's threads. The pool stays the caller's.
    """

    def __init__(
        self, spec: Spec, backbone: Backbone, pool: Decoders, *, ahead_bytes: int = 256 << 20
    ) -> None:
        step_bytes = spec.window * spec.size * spec.size * 3
        self._clip_bytes = spec.sampling.steps * step_bytes
        least = backbone.batch * (backbone.concurrency + 1) * step_bytes + 2 * self._clip_bytes
        self._ahead_limit = max(ahead_bytes, least)
        self._ahead_bytes = 0
        self._concurrency = backbone.concurrency
        self._spec = spec
        self._pool = pool
        self._decode_s = 0.0
        self._calls: list[_Call] = []
        self._news = threading.Condition()
        self._cnn = CnnThreads(backbone, more_expected=self._more_expected)

    def extract(
        self,
        clips: Sequence[ClipSource],
        *,
        on_clip: Callable[[ClipResult], None] = lambda result: None,
        stop: threading.Event | None = None,
        into: Sequence[NDArray[Any]] | None = None,
    ) -> list[ClipResult]:
        """The results of a batch of clips, in the clips' order.

        `into`: for each clip where its features go, (steps, *shape) zeros of the spec's dtype, as they
        stay for a clip that is not ready; new arrays if not given.
        `on_clip` is called in this thread with every result as soon as it is known, in any order.
        Once `stop` is set, clips of which no frame has reached the CNN are returned as "stopped", the
        others are finished. A clip's own error is its result; an error of the engine or of the decoder
        pool is raised.
        """
        call = _Call(self, clips, into)
        with self._news:
            self._calls.append(call)
        self._cnn.changed()
        try:
            return call.run(on_clip, stop or threading.Event())
        finally:
            call.abandon()
            with self._news:
                self._calls.remove(call)
                self._news.notify_all()
            self._cnn.changed()

    def seconds(self) -> dict[str, float]:
        """Seconds so far by stage: decode (CPU time of the decoders), cnn and waiting (wall time).

        waiting: for frames, while some are expected. The last two are averages over the CNN's threads.
        """
        wall = {"cnn": self._cnn.busy_s, "waiting": self._cnn.idle_s}
        mean = {name: seconds / self._concurrency for name, seconds in wall.items()}
        return {"decode": self._decode_s, **mean}

    def close(self) -> None:
        """End the CNN's threads. No `extract` may be running."""
        self._cnn.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _more_expected(self) -> bool:
        # Read without the lock: a stale answer costs one look more, `changed` follows every change.
        return any(call.waiting or call.reading for call in self._calls)

    def _may_submit(self, call: _Call) -> bool:
        """First come, first served: the oldest call with clips left, while bytes are left."""
        first = next((c for c in self._calls if c.waiting), None)
        return first is call and self._ahead_bytes + self._clip_bytes <= self._ahead_limit


@dataclass(slots=True, eq=False)
class _Clip:
    """One clip of a call. `state` is guarded by the extractor's condition."""

    index: int
    source: ClipSource
    part: Part | None = None
    state: Literal["waiting", "reading", "queued", "over"] = "waiting"
    future: Future[ClipFrames] | None = None
    frames: ClipFrames | None = None
    job: Job | None = None
    features: NDArray[Any] | None = None


class _Call:
    """One running `extract`: hands clips out and gathers their results.

    Locks: the extractor's condition may be held while the CNN's is taken, never the other way
    round, and never while the pool is called (its threads call back into `_read`).
    """

    def __init__(
        self,
        extractor: Extractor,
        sources: Sequence[ClipSource],
        into: Sequence[NDArray[Any]] | None,
    ) -> None:
        self._of = extractor
        self._lock = extractor._news
        rooms = [None] * len(sources) if into is None else into
        pairs = zip(sources, rooms, strict=True)
        order, parts = parts_of(sources)
        self._clips = [
            _Clip(i, source, parts.get(i), features=room) for i, (source, room) in enumerate(pairs)
        ]
        self._ended: deque[tuple[_Clip, UnreadableClip | None]] = deque()
        self._fatal: BaseException | None = None
        self.waiting = deque(self._clips[i] for i in order)
        self.reading = 0

    def run(self, on_clip: Callable[[ClipResult], None], stop: threading.Event) -> list[ClipResult]:
        results: dict[int, ClipResult] = {}
        stopping = False
        while len(results) < len(self._clips):
            if stop.is_set() and not stopping:
                stopping = True
                spec, dropped = self._of._spec, self.abandon()
                settled = [empty_result(spec, clip.index, "stopped") for clip in dropped]
            else:
                self._submit()
                settled = [self._result(clip, error) for clip, error in self._wait()]
            for result in settled:
                results[result.index] = result
                on_clip(result)
        return [results[index] for index in range(len(self._clips))]

    def abandon(self) -> list[_Clip]:
        """Drop every clip of which no frame has reached the CNN; returns them."""
        with self._lock:
            dropped = [clip for clip in self._clips if clip.state in ("waiting", "reading")]
            queued = [clip for clip in self._clips if clip.state == "queued"]
            self.waiting.clear()
            for clip in dropped:
                clip.state = "over"
            self._lock.notify_all()
        for clip in dropped:
            if (future := clip.future) is not None:
                future.cancel()
        for clip in queued:
            if clip.job is not None and self._of._cnn.drop(clip.job):
                clip.state = "over"
                dropped.append(clip)
        self._of._cnn.changed()
        return dropped

    def _submit(self) -> None:
        extractor = self._of
        while True:
            with self._lock:
                if not self.waiting or not extractor._may_submit(self):
                    return
                clip = self.waiting.popleft()
                clip.state = "reading"
                self.reading += 1
                extractor._ahead_bytes += extractor._clip_bytes
                if not self.waiting:
                    # The next call's turn.
                    self._lock.notify_all()
            try:
                source = clip.source
                clip.future = extractor._pool.submit(source.path, source.size_bytes, clip.part)
            except BaseException:
                with self._lock:
                    self.reading -= 1
                    extractor._ahead_bytes -= extractor._clip_bytes
                raise
            clip.future.add_done_callback(functools.partial(self._read, clip))

    def _wait(self) -> list[tuple[_Clip, UnreadableClip | None]]:
        """The clips that have ended since the last look; waits a moment where there are none."""
        with self._lock:
            idle = not self._ended and self._fatal is None
            if idle and not (self.waiting and self._of._may_submit(self)):
                self._lock.wait(_STOP_CHECK_S)
            if self._fatal is not None:
                raise self._fatal
            ended = list(self._ended)
            self._ended.clear()
        return ended

    def _read(self, clip: _Clip, future: Future[ClipFrames]) -> None:
        """A clip's future is done (called from the pool's threads, or where it is cancelled)."""
        frames, error = None, None
        try:
            frames = future.result()
        except (Exception, CancelledError) as caught:
            error = caught
        if frames is not None and not len(frames):
            frames.release()
            frames, error = None, UnreadableClip("no_frames", "the decoder gave no frame")
        extractor = self._of
        # The future would hold the frames for as long as the call lasts.
        clip.future = None
        with self._lock:
            self.reading -= 1
            wanted = clip.state == "reading"
            queued = wanted and frames is not None
            if frames is not None:
                extractor._decode_s += frames.decode_s
                clip.frames = frames
            if frames is not None and wanted:
                if clip.features is None:
                    spec = extractor._spec
                    clip.features = np.zeros((spec.sampling.steps, *spec.shape), spec.dtype)
                clip.job = Job.of(
                    frames,
                    clip.features[: len(frames)],
                    on_read=functools.partial(self._frames_read, clip),
                    on_done=functools.partial(self._features_done, clip),
                )
                clip.state = "queued"
                extractor._cnn.put(clip.job)
            elif wanted:
                clip.state = "over"
                if isinstance(error, UnreadableClip):
                    self._ended.append((clip, error))
                else:
                    self._fatal = self._fatal or error
                self._lock.notify_all()
        if not queued:
            self._frames_read(clip)
        extractor._cnn.changed()

    def _frames_read(self, clip: _Clip) -> None:
        """A clip's frames are needed no more: give their memory and its share of bytes back."""
        if clip.frames is not None:
            clip.frames.release()
            clip.frames = replace(clip.frames, frames=_NO_FRAMES)
        with self._lock:
            self._of._ahead_bytes -= self._of._clip_bytes
            if any(call.waiting for call in self._of._calls):
                self._lock.notify_all()

    def _features_done(self, clip: _Clip, error: BaseException | None) -> None:
        with self._lock:
            if clip.state == "queued":
                clip.state = "over"
                if error is None:
                    self._ended.append((clip, None))
                elif self._fatal is None:
                    self._fatal = RuntimeError(f"the CNN failed on a batch of frames: {error}")
                    self._fatal.__cause__ = error
            self._lock.notify_all()

    def _result(self, clip: _Clip, error: UnreadableClip | None) -> ClipResult:
        spec = self._of._spec
        if error is not None:
            failed = empty_result(spec, clip.index, "failed", error.reason, error.detail)
            return replace(failed, sha256=error.sha256)
        assert clip.frames is not None
        assert clip.features is not None
        result = ready_result(spec, clip.index, clip.frames, clip.features)
        clip.job = clip.frames = clip.features = None
        return result
