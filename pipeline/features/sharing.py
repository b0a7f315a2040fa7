"""One decoding of a clip for several extractors: each reads the frames that its own plan takes of it."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field

from pipeline.features.decoding.values import ClipFrames, Decoders, Part


@dataclass(slots=True, eq=False)
class _Reading:
    """One clip that is decoded: the futures that wait for it, and its outcome once it is known."""

    path: str
    futures: dict[int, Future[ClipFrames]] = field(default_factory=dict)
    outcome: Future[ClipFrames] | None = None


class SharedDecoders:
    """`parts` are `Decoders`, one for each plan of `decoders` (the first, then its further ones).

    Every part must be asked for the same clips in the same order. A clip is decoded when the first of
    them asks for it, and its memory is lent until all of them have released their frames.
    """

    def __init__(self, decoders: Decoders, count: int) -> None:
        self.parts = tuple(_Part(self, number) for number in range(count))
        self._decoders = decoders
        self._lock = threading.Lock()
        self._asked = [0] * count
        self._readings: dict[int, _Reading] = {}
        self._closed: set[int] = set()

    def close_part(self, number: int) -> None:
        """This part asks for nothing more: its frames are released as they come."""
        with self._lock:
            self._closed.add(number)
            left = [
                reading.outcome
                for reading in self._readings.values()
                if reading.outcome is not None and number not in reading.futures
            ]
        for outcome in left:
            _release(outcome, number)

    def _submit(
        self, part: int, path: str, size_bytes: int, of_file: Part | None
    ) -> Future[ClipFrames]:
        future: Future[ClipFrames] = Future()
        with self._lock:
            turn = self._asked[part]
            self._asked[part] += 1
            first = turn not in self._readings
            reading = self._readings.setdefault(turn, _Reading(path))
            if reading.path != path:
                raise RuntimeError(
                    f"{path} was asked for where another part asked for {reading.path}: give all parts "
                    "the same clips in one order"
                )
            reading.futures[part] = future
            if len(reading.futures) == len(self.parts):
                del self._readings[turn]
            outcome = reading.outcome
        if first:
            # Not under the lock: the callback may be called at once.
            self._decoders.submit(path, size_bytes, of_file).add_done_callback(
                lambda inner: self._decoded(reading, inner)
            )
        elif outcome is not None:
            _hand_on(outcome, part, future)
        return future

    def _decoded(self, reading: _Reading, outcome: Future[ClipFrames]) -> None:
        with self._lock:
            reading.outcome = outcome
            waiting = list(reading.futures.items())
            closed = [number for number in self._closed if number not in reading.futures]
        for part, future in waiting:
            _hand_on(outcome, part, future)
        for part in closed:
            _release(outcome, part)


class _Part:
    """The frames of one plan."""

    def __init__(self, shared: SharedDecoders, number: int) -> None:
        self._shared, self._number = shared, number

    def submit(
        self, path: str, size_bytes: int = -1, part: Part | None = None
    ) -> Future[ClipFrames]:
        """A future of the clip's frames, as of `DecoderPool.submit`."""
        return self._shared._submit(self._number, path, size_bytes, part)


def _part_of(frames: ClipFrames, part: int) -> ClipFrames:
    return (frames, *frames.further)[part]


def _hand_on(outcome: Future[ClipFrames], part: int, future: Future[ClipFrames]) -> None:
    """Set the part's frames, or the error, as a future's result; a cancelled one's are released."""
    wanted = future.set_running_or_notify_cancel()
    try:
        frames = _part_of(outcome.result(), part)
    except (Exception, CancelledError) as error:
        if wanted:
            future.set_exception(error)
        return
    if wanted:
        future.set_result(frames)
    else:
        frames.release()


def _release(outcome: Future[ClipFrames], part: int) -> None:
    if not outcome.cancelled() and outcome.exception() is None:
        _part_of(outcome.result(), part).release()
