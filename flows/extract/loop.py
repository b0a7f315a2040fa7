"""The loop of a run: gives its batches out as tasks, takes in their results, resubmits what died.

A batch is given out only when its rows are pending in the store, so whatever dies leaves rows that
the next run makes.
"""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from prefect_dask import DaskTaskRunner

import store
from flows.extract.batches import request_stop, send_logs, topic
from flows.extract.commit import Committer, Totals
from flows.extract.dispatch import Dispatch, Task, worker_died
from flows.extract.progress import Progress
from flows.extract.tasks import batches_per_task, unpacked
from flows.extract.values import Batch, BatchResult
from flows.extract.worker_checks import within
from flows.extract.workforce import Workforce
from flows.server.lifetime import RunCancelled
from flows.stopping import on_signals, signals_of_a_run
from store import Writer

_RESULT_S = 5.0  # to fetch what a worker has ended, from it
_ATTEMPTS = 3
_STOP_WITHOUT_WORKERS_S = 10.0
# Without a finished clip, once asked to stop: as long as a scheduler waits for a worker.
_STOP_S = 300.0
_LOGS_S = 10.0
_UNMOVED_S = 60.0  # after which batches that idle workers do not begin are given out again


class BatchLost(RuntimeError):
    """A batch's worker died again and again: the environment is at fault, not a clip."""

    exit_status = 4


@dataclass(kw_only=True)
class BatchLoop:
    """Runs batches on a Dask cluster and commits their results to the writer of each store.

    run_id: names the run to its workers · gpu: as in the settings · cancelled: set once the run is
    cancelled through Prefect.
    """

    writers: Sequence[Writer]
    runner: DaskTaskRunner
    workforce: Workforce
    progress: Progress
    run_id: str
    gpu: str
    cancelled: threading.Event

    def __post_init__(self) -> None:
        self._dispatch = Dispatch(self.writers, self.runner, self.workforce, gpu=self.gpu)
        self._committers = [Committer(writer) for writer in self.writers]
        self._given_again = False
        self._taken = 0  # of the run's batches
        self._signals_seen: list[int] = []
        self._heard_at = time.monotonic()
        self._asked_to_stop_at = 0.0
        # Dask's thread puts them there, the flow's takes them out.
        self._reports: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def run(self, batches: Iterator[Batch], total: int) -> list[Totals]:
        """Run all `total` batches until each is committed or a signal came; the totals of each store.

        Raises `RunCancelled` after a cancellation through Prefect, and what ended the run early
        (`store.StoreError`, `BatchLost`, `NoWorkers`); what had arrived is committed all the same,
        and rows not made stay pending.
        """
        self.runner.client.subscribe_topic(topic(self.run_id), self._on_event)
        try:
            with on_signals(self._on_signal, *signals_of_a_run()):
                while True:
                    is_exhausted = self._give_out(batches, total)
                    if not len(self._dispatch) and (is_exhausted or self._signals_seen):
                        break
                    self._take_in()
                    if self._signals_seen and self._is_stuck():
                        self._abandon()
            self._leave(self._dispatch.held)
        finally:
            self._take_reports()
            self._flush()
            self.runner.client.unsubscribe_topic(topic(self.run_id))
            # A worker that has gone, or a scheduler, takes its last lines along: not a failure.
            client = self.runner.client
            within(_LOGS_S, lambda: client.run(send_logs, on_error="ignore"))
        totals = [committer.close() for committer in self._committers]
        if self._signals_seen:
            for each in totals:
                each.stopped_by = signal.Signals(self._signals_seen[0]).name
        return totals

    def _flush(self) -> None:
        """Commit what has arrived, to each store."""
        for number, committer in enumerate(self._committers):
            committer.flush(self._dispatch.numbers(number))

    def _give_out(self, batches: Iterator[Batch], total: int) -> bool:
        """Give tasks to the workers as long as they have room; returns whether no batch is left."""
        held = self._dispatch.held
        while not self._signals_seen and self._dispatch.has_room:
            left = total - self._taken + len(held)
            size = batches_per_task(total, left, self.workforce.threads)
            if held:
                # What has lost its worker goes alone: it may be what kills them.
                size = 1 if held[0].attempt else size
                given = [held.popleft() for _ in range(min(size, len(held)))]
            else:
                given = list(islice(batches, size))
                self._taken += len(given)
            if not given:
                return True
            self._dispatch.submit(given)
        return False

    def _is_stuck(self) -> bool:
        """Whether the batches in hand will not end although the run was asked to stop."""
        silent_s = time.monotonic() - max(self._heard_at, self._asked_to_stop_at)
        idle_s = max(self.workforce.nobody_for_s, min(silent_s, self._dispatch.unmoved_for_s))
        return idle_s > _STOP_WITHOUT_WORKERS_S or silent_s > _STOP_S

    def _abandon(self) -> None:
        """Leave what is in flight to the next run, which checks the chunk of a late writer."""
        left = [batch for task in self._dispatch.take_back_all() for batch in task.left.values()]
        if left:
            self.progress.note(
                f"{len(left)} batches do not end, their clips are left to the next run"
            )
        self._leave(left)

    def _leave(self, batches: Iterable[Batch]) -> None:
        for part in (part for batch in batches for part in batch.parts):
            self._committers[part.store].totals.stopped += len(part.clips)

    def _take_in(self) -> None:
        """Wait for one batch (or a moment), commit if it is time to, and show the progress."""
        if self.cancelled.is_set():
            self._stop_workers()
            raise RunCancelled("the run was cancelled through Prefect")
        ended = self._dispatch.next_ended(wait_s=0.25)
        self._take_reports()
        self.progress.tick()
        if not self._signals_seen:
            self.workforce.keep_up()
        if self.runner.client.status != "running":
            raise BatchLost(self._scheduler_gone())
        if ended is not None:
            self._fetch(ended)
        for lost in self._dispatch.take_back_lost():
            self._resubmit(lost, "the workers that it was given to have left")
        self._require_movement()
        if any(committer.is_due for committer in self._committers):
            self._flush()

    def _take_reports(self) -> None:
        """Take in what workers have reported of their tasks: that they began one, a batch's result."""
        with suppress(queue.Empty):
            while True:
                report = self._reports.get_nowait()
                task = self._dispatch.given(report["task"])
                if task is not None and report["result"]:
                    self._accept(task, unpacked(report["result"]))
                elif task is not None:
                    task.begun.append(report["worker"])

    def _accept(self, task: Task, result: BatchResult) -> None:
        if task.left.pop(result.key, None) is None:
            return  # Dask gave the task to a second worker
        for part in result.parts:
            self._committers[part.store].accept(part)
            self._count(part)
        self._heard_at = time.monotonic()
        self._given_again = False

    def _fetch(self, task: Task) -> None:
        """Fetch the end of a task that has ended, unless each of its batches has reported its result.

        Its worker may leave before it has arrived: then Dask runs the task again, or `take_back_lost`
        returns it.
        """
        if not task.left:
            self._dispatch.close(task)
            return
        try:
            state = task.future.result(timeout=_RESULT_S)
        except TimeoutError:
            self._dispatch.put_back(task)
            return
        except Exception as error:  # whatever a worker or Dask raised: sorted out just below
            self._dispatch.close(task)
            self._on_error(task, error)
        else:
            self._dispatch.close(task)
            for result in state.result(_sync=True):
                self._accept(task, unpacked(result))
            if task.left:
                self._resubmit(task, "its worker was asked to stop")
        self._heard_at = time.monotonic()
        self._given_again = False

    def _on_error(self, task: Task, error: Exception) -> None:
        if isinstance(error, store.StoreError) or not worker_died(error):
            raise error
        if self.runner.client.status != "running":
            raise BatchLost(self._scheduler_gone()) from error
        self._dispatch.suspect(task)
        self._resubmit(task, "its worker died", error)

    def _resubmit(self, task: Task, why: str, error: Exception | None = None) -> None:
        """Have the batches given out again that a lost task has not finished."""
        if not task.left:
            return
        in_work, *others = task.left.values()
        if self._signals_seen:
            self.progress.note(f"{task.name}: {why}, its clips are left to the next run")
            self._leave(task.left.values())
            return
        if in_work.attempt + 1 >= _ATTEMPTS:
            raise BatchLost(
                f"{in_work.name} lost its worker {_ATTEMPTS} times ({error or why}): look at the "
                "machine's memory and the worker's log; its clips stay pending for the next run"
            ) from error
        what = f"the {len(task.left)} batches are" if others else "the batch is"
        self.progress.note(f"{task.name}: {why}, {what} submitted again")
        self._dispatch.held.append(replace(in_work, attempt=in_work.attempt + 1))
        self._dispatch.held.extend(others)

    def _require_movement(self) -> None:
        """Whatever the cause, batches that idle workers do not start are not waited for without end."""
        unmoved_s = min(self._dispatch.unmoved_for_s, time.monotonic() - self._heard_at)
        if self._signals_seen or unmoved_s < _UNMOVED_S:
            return
        if self._given_again:
            raise BatchLost(
                f"{len(self._dispatch)} tasks were given out twice, and the workers of "
                f"{self.runner.client.scheduler.address} have been idle for {unmoved_s:.0f} s: look at "
                "the scheduler's log, start it and its workers anew, and run again; the run goes on "
                "where it stood"
            )
        self._given_again = True
        back = self._dispatch.take_back_all()
        self.progress.note(
            f"{len(back)} tasks have not begun for {unmoved_s:.0f} s although workers are idle: they "
            "are given out again"
        )
        self._dispatch.held.extend(batch for task in back for batch in task.left.values())

    def _scheduler_gone(self) -> str:
        return (
            f"the Dask scheduler at {self.runner.client.scheduler.address} has gone: start it "
            "and run again, the run goes on where it stood"
        )

    def _count(self, result: BatchResult) -> None:
        """Count a batch's clips whose events have not arrived: late ones, or lost with a worker."""
        counted = [True] * len(result.rows) if result.counted is None else result.counted.tolist()
        each = zip(result.rows.tolist(), result.status, result.mask, counted, strict=True)
        for row, status, mask, is_counted in each:
            if status != "stopped" and is_counted:
                frames = int(mask.sum())
                self.progress.clip(row=row, status=status, frames=frames, store=result.store)

    def _on_event(self, event: tuple[float, Any]) -> None:
        """What a worker has reported; in Dask's thread."""
        self._heard_at = time.monotonic()
        report = event[1]
        for number, row, status, frames in report.get("clips", ()):
            self.progress.clip(row=row, status=status, frames=frames, store=number)
        if "task" in report:
            self._reports.put(report)

    def _on_signal(self, number: int) -> None:
        """Ctrl-C or SIGTERM once: no new clips, finish those in hand. Twice: at once."""
        self._signals_seen.append(number)
        self._asked_to_stop_at = time.monotonic()
        if len(self._signals_seen) > 1:
            raise KeyboardInterrupt(signal.Signals(number).name)
        self.progress.note(
            "stopping: the clips in hand are finished and committed (once more to stop at once)"
        )
        self._stop_workers()

    def _stop_workers(self) -> None:
        words = (request_stop, self.run_id)
        threading.Thread(target=self.runner.client.run, args=words, daemon=True).start()
