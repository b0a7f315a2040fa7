"""`DecoderPool`: clips are decoded in child processes, so that a broken clip fails alone.

Frames come back through a bounded number of shared slots, everything else as JSON; nothing is
pickled. Children die with this process at once. They are started with `subprocess`, because the
daemonic processes that Dask runs workers in may not use `multiprocessing`.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any, NamedTuple, Self
from weakref import WeakKeyDictionary

from pipeline.errors import UnreadableClip
from pipeline.features.decoding.process import (
    ChildProcess,
    DecoderKilled,
    DecoderUnavailable,
    Limits,
)
from pipeline.features.decoding.slots import FrameSlots
from pipeline.features.decoding.values import ClipFrames, FileParts, FramePlan, Part

AHEAD_BYTES = 256 << 20
IN_PLACE_BYTES = 1 << 30
"""More room, for frames that a card's CNN reads where they lie. It takes no memory where it is not used:
an extractor has as much decoded as its CNN's batches need."""
_START_TRIES = 3


class _Job(NamedTuple):
    """lends: whether the result is in the slot, which is lent with it."""

    run: Callable[[ChildProcess, int], Any]
    future: Future[Any]
    part: Part | None = None
    lends: bool = True


class _Jobs:
    """Jobs in order. The parts of one file go to the thread that took the first of them."""

    def __init__(self) -> None:
        self._jobs: deque[_Job] = deque()
        self._thread_of: WeakKeyDictionary[FileParts, int] = WeakKeyDictionary()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, job: _Job) -> None:
        with self._changed:
            self._jobs.append(job)
            self._changed.notify_all()

    def take(self, thread: int) -> _Job | None:
        """The next job that this thread may have, waiting for it; None once they are closed."""
        with self._changed:
            while not self._closed:
                for job in self._jobs:
                    file = None if job.part is None else job.part.of
                    if file is None or self._thread_of.setdefault(file, thread) == thread:
                        self._jobs.remove(job)
                        return job
                self._changed.wait()
        return None

    def close(self) -> list[_Job]:
        """End all waiting; returns the jobs that nobody took."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            return list(self._jobs)


class DecoderPool:
    """A context manager that decodes clips in child processes. Thread safe.

    plan: which frames, fitted how. processes: how many children, 0 for one per core; each is
    started when there is work for it, or at once if `ahead`. limits: what a clip may cost.
    ahead_bytes: room for frames that are decoded and not released yet; decoding waits when it is
    full. previews: have each child make three small pictures of its clips. further: plans that take their
    frames of the same decoding (`ClipFrames.further`).
    """

    def __init__(
        self,
        plan: FramePlan,
        *,
        processes: int = 0,
        limits: Limits | None = None,
        ahead_bytes: int = AHEAD_BYTES,
        previews: bool = False,
        ahead: bool = False,
        further: Sequence[FramePlan] = (),
    ) -> None:
        self.processes = processes or len(os.sched_getaffinity(0))
        plans = (plan, *further)
        total = sum(math.prod(each.frames_shape) for each in plans)
        self._slots = FrameSlots(
            [each.frames_shape for each in plans],
            slots=max(self.processes + 1, ahead_bytes // total),
            processes=self.processes,
        )
        self._start = functools.partial(
            ChildProcess, plans, self._slots, limits=limits or Limits(), previews=previews
        )
        self._jobs = _Jobs()
        self._children: dict[int, ChildProcess] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._ahead = ahead
        self._threads = [
            threading.Thread(target=self._serve, args=(n,), name=f"decoder-{n}", daemon=True)
            for n in range(self.processes)
        ]
        for thread in self._threads:
            thread.start()

    def submit(
        self,
        path: str,
        size_bytes: int = -1,
        part: Part | None = None,
        plans: tuple[int, ...] = (),
    ) -> Future[ClipFrames]:
        """A future of the clip's frames; `release` them when done, or decoding stops.

        Clips are begun in the order they were submitted; parts of one file one after the other, in the
        process that has it open. size_bytes: of the file, for its time
        limit; −1 where unknown. plans: the numbers of those that take frames, if not all. The future
        raises `UnreadableClip` with a reason, `CancelledError`
        where the pool was closed first, or `DecoderUnavailable`.
        """
        future: Future[ClipFrames] = Future()

        def read(child: ChildProcess, slot: int) -> ClipFrames:
            return child.read(path, size_bytes, slot, part, plans)

        self._put(_Job(read, future, part))
        return future

    def rows(
        self, path: str, size_bytes: int, *, row_s: float, first_s: float
    ) -> Future[list[int]]:
        """A future of the rows that a file makes: see `lengths.rows_of_file`. Nothing is decoded."""
        future: Future[list[int]] = Future()
        run = functools.partial(_rows, path, size_bytes, row_s, first_s)
        self._put(_Job(run, future, lends=False))
        return future

    def _put(self, job: _Job) -> None:
        with self._lock:
            if self._closed:
                raise RuntimeError("the decoder pool is closed: make a new one")
            self._jobs.put(job)

    @property
    def slots(self) -> int:
        """How many clips' frames can be held at once."""
        return self._slots.count

    def close(self) -> None:
        """Kill the children and cancel what is not done. Frames handed out stay readable."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for child in self._children.values():
                child.kill()
        self._slots.stop()
        left = self._jobs.close()
        for thread in self._threads:
            thread.join()
        for job in left:
            job.future.cancel()
        self._slots.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"DecoderPool(processes={self.processes}, slots={self.slots} × {self._slots.shapes})"

    def _serve(self, number: int) -> None:
        """One thread per child: a free slot first, then the next clip.

        In this order the earliest clips hold the slots, so waiting for futures in the order of
        submission never blocks.
        """
        if self._ahead:
            with contextlib.suppress(DecoderUnavailable, UnreadableClip):  # its first clip tells
                self._child(number)
        while (slot := self._slots.lend()) is not None:
            job = self._jobs.take(number)
            if job is None:
                break
            if not job.future.set_running_or_notify_cancel():
                self._slots.take_back(slot)
                continue
            try:
                result = self._run(job, number, slot)
            except BaseException as error:  # set on the clip's future
                self._slots.take_back(slot)
                self._drop_unusable(number)
                job.future.set_exception(CancelledError() if self._closed else error)
            else:
                if not job.lends:
                    self._slots.take_back(slot)
                job.future.set_result(result)
                del result
            del job  # while this thread waits for the next, what it holds must be free to go
        self._drop_unusable(number)

    def _run(self, job: _Job, number: int, slot: int) -> Any:
        """What the job gives, once more where the child was killed: that is no fault of the clip."""
        try:
            return job.run(self._child(number), slot)
        except DecoderKilled:
            if self._closed:
                raise
        self._drop_unusable(number)
        return job.run(self._child(number), slot)

    def _child(self, number: int) -> ChildProcess:
        child = self._children.get(number)
        for attempt in range(_START_TRIES):
            if child is not None and child.usable:
                return child
            self._drop_unusable(number)
            try:
                child = self._start(number=number)
            except DecoderUnavailable:
                if self._closed or attempt == _START_TRIES - 1:
                    raise
                continue
            with self._lock:
                self._children[number] = child
                if self._closed:
                    child.kill()
        raise UnreadableClip(
            "decoder_crashed", "every decoder process died before it read the clip"
        )

    def _drop_unusable(self, number: int) -> None:
        """Reap the child if it is dead; kill it too if the pool is closed."""
        with self._lock:
            child = self._children.get(number)
            if child is None or (child.usable and not self._closed):
                return
            del self._children[number]
        child.close()


def _rows(
    path: str, size_bytes: int, row_s: float, first_s: float, child: ChildProcess, slot: int
) -> list[int]:
    return child.rows(path, size_bytes, row_s, first_s)
