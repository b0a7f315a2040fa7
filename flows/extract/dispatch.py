"""The tasks of a run: its batches, given to workers, and taken back when they end or are lost.

Dask keeps a task that is restricted to workers that have left for ever, whatever other workers there
are; and one whose worker died it may begin anew elsewhere, with batches that are done. So each task is
kept with the workers that it was given to and the one that began it, and withdrawn when those have left.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from uuid import uuid4

from prefect_dask import DaskTaskRunner

from flows.extract.cluster import gpu_share
from flows.extract.task_context import context_of_run
from flows.extract.tasks import packed, run_as_task, withdraw
from flows.extract.values import Batch, Key, name_of
from flows.extract.worker_checks import within
from flows.extract.workforce import Workforce
from store import Writer

_PREFETCH = 1  # tasks that wait at a worker, so that it never waits for the flow
_CANCEL_S = 10.0
_IGNORED = {"on_error": "ignore"}


# Of every pass of a run: Dask knows a task by it, and so do workers that are told to let it be.
_numbers = itertools.count()


@dataclass(slots=True, kw_only=True)
class Task:
    """Batches that were given out together; `left` are those without a result yet, by key.

    workers: that may have it, None for any. begun: those that have begun it, one unless Dask has given
    it to another.
    """

    number: int
    batches: Sequence[Batch]
    workers: frozenset[str] | None
    left: dict[Key, Batch]
    future: Any = None
    begun: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What messages call it: its batches without a result, or all."""
        return name_of(list(self.left.values()) or self.batches)


class Dispatch:
    """Gives tasks out, and takes back the batches of those that have ended or are lost.

    writers: of the run's stores. gpu: "auto", "require" or "never", as in the settings. `held`: batches
    that wait for room. Used by the flow's thread alone.
    """

    def __init__(
        self, writers: Sequence[Writer], runner: DaskTaskRunner, workforce: Workforce, *, gpu: str
    ) -> None:
        self._writers, self._runner, self._workforce = writers, runner, workforce
        self._resources = gpu_share(runner.client, gpu)
        self._given: dict[int, Task] = {}
        self.held: deque[Batch] = deque()
        self._ended: queue.SimpleQueue[Task] = queue.SimpleQueue()
        self._given_at = time.monotonic()

    def numbers(self, store: int) -> list[int]:
        """The batches of one of the stores that may be written to now."""
        return [
            part.number
            for task in self._given.values()
            for batch in task.left.values()
            for part in batch.parts
            if part.store == store
        ]

    def __len__(self) -> int:
        """Tasks that are given out."""
        return len(self._given)

    @property
    def has_room(self) -> bool:
        """Whether the workers can be given another task; never while no worker takes part."""
        workforce = self._workforce
        room = workforce.threads + _PREFETCH * workforce.count
        return len(self._given) < room

    @property
    def unmoved_for_s(self) -> float:
        """For how long workers have been there and idle, although tasks are given out to them."""
        if not self._given:
            return 0.0
        return min(self._workforce.idle_for_s, time.monotonic() - self._given_at)

    @cached_property
    def _context(self) -> bytes:
        return context_of_run()

    def submit(self, batches: Sequence[Batch]) -> None:
        """Give a task to the workers that take part; one of them at least does."""
        only = self._workforce.only
        task = Task(
            number=next(_numbers),
            batches=batches,
            workers=None if only is None else frozenset(only),
            left={batch.key: batch for batch in batches},
        )
        # Recorded before a worker can write.
        self._given[task.number] = task
        for number in {part.store for batch in batches for part in batch.parts}:
            self._writers[number].in_flight(self.numbers(number))
        task.future = self._runner.client.submit(
            run_as_task,
            self._context,
            uuid4(),
            task.name,
            task.number,
            packed(batches),
            key=f"batch-{batches[0].run}-{task.number}",
            pure=False,
            resources=self._resources or None,
            workers=only,  # where some do not answer: a task must not wait for them
        )
        self._given_at = time.monotonic()
        task.future.add_done_callback(lambda done: self._ended.put(task))

    def next_ended(self, wait_s: float) -> Task | None:
        """A task that has ended and still counts as given out; None where none ends in time."""
        try:
            task = self._ended.get(timeout=wait_s)
        except queue.Empty:
            return None
        return self._given.get(task.number)

    def close(self, task: Task) -> None:
        """A task has ended: it counts as given out no longer."""
        del self._given[task.number]

    def put_back(self, task: Task) -> None:
        """A task that `next_ended` gave has no result: its worker left before it was fetched.

        Dask runs it again if another worker may; else it is lost, once its workers have left.
        """
        self._ended.put(task)

    def given(self, number: int) -> Task | None:
        """The task of this number; None where it has ended or was taken back."""
        return self._given.get(number)

    def take_back_lost(self) -> list[Task]:
        """The tasks whose worker has left, or that were given to certain workers of which none is left.

        Dask may have begun one again elsewhere, with its first batch, which may be done: no matter.
        """
        crew = self._workforce
        return self._take_back(
            task
            for task in self._given.values()
            if len(task.begun) > 1
            or any(crew.has_left(name) for name in task.begun)
            or (task.workers is not None and not crew.has_any(task.workers))
        )

    def take_back_all(self) -> list[Task]:
        """Every task that is given out; a worker that has one may write its batches all the same."""
        return self._take_back(self._given.values())

    def suspect(self, task: Task) -> None:
        """Have the chunks checked that a worker which was cut off may still write."""
        # Begun anew, a task writes those that are done as well.
        for batch in task.left.values() if len(task.begun) < 2 else task.batches:
            for part in batch.parts:
                self._writers[part.store].suspect(part.number)

    def _take_back(self, tasks: Iterable[Task]) -> list[Task]:
        taken = [self._given.pop(task.number) for task in list(tasks)]
        futures = [task.future for task in taken if task.future is not None]
        for task in taken:
            self.suspect(task)
        if futures:
            client, numbers = self._runner.client, [task.number for task in taken]
            run = taken[0].batches[0].run
            threading.Thread(  # a worker that does not answer is not waited for
                target=client.run, args=(withdraw, run, numbers), kwargs=_IGNORED, daemon=True
            ).start()
            within(_CANCEL_S, lambda: client.cancel(futures))
        return taken


def worker_died(error: BaseException) -> bool:
    """Whether a batch failed because its worker, or the connection to it, has died."""
    from concurrent.futures import CancelledError

    from distributed import KilledWorker
    from distributed.comm import CommClosedError

    return isinstance(error, KilledWorker | CommClosedError | CancelledError | ConnectionError)
