"""The middle of a run: submits batches, takes in what arrives, commits it, resubmits what died.

The flow's process alone runs this, and it alone writes the small columns. A batch is submitted only
when its rows stand at pending in the store, so whatever dies leaves rows that the next run makes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from types import FrameType
from typing import Any

import numpy as np
from prefect_dask import DaskTaskRunner

import store
from flows.extract.batches import Batch, BatchResult, topic
from flows.extract.dispatch import Dispatch, worker_died
from flows.extract.extracted import Extracted, least, most, spent
from flows.extract.progress import Progress
from flows.extract.worker import request_stop, send_logs
from flows.extract.workforce import Workforce, within
from flows.server.cancelling import RunCancelled
from store import FAILED, READY, Writer

COMMIT_EVERY_S = 5.0
_RUN_BY_PREFECT = "PREFECT__FLOW_RUN_ID"  # set in the process that a Prefect runner starts
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


class Extraction:
    """Runs batches on a Dask cluster and commits their results to a store's writer."""

    def __init__(
        self,
        writer: Writer,
        runner: DaskTaskRunner,
        workforce: Workforce,
        progress: Progress,
        *,
        run: str,
        gpu: str,
        cancelled: threading.Event | None = None,
    ) -> None:
        self._writer = writer
        self._runner = runner
        self._workforce = workforce
        self._progress = progress
        self._run = run
        self._dispatch = Dispatch(writer, runner, workforce, gpu=gpu)
        self._given_again = False
        self._extracted = Extracted()
        self._seconds: dict[str, tuple[dict[str, float], dict[str, float]]] = {}
        self._signals_seen: list[int] = []
        self._cancelled = cancelled or threading.Event()
        self._committed_at = self._heard_at = time.monotonic()
        self._asked_to_stop_at = 0.0

    def run(self, batches: Iterator[Batch]) -> Extracted:
        """Run all batches; returns when each is committed, or when the user has asked to stop.

        Raises `RunCancelled` after a cancellation through Prefect, and what ended the run early
        (`store.StoreError`, `BatchLost`, `NoWorkers`); what had arrived is committed all the same,
        and rows not made stay pending.
        """
        self._runner.client.subscribe_topic(topic(self._run), self._on_clip)
        try:
            with self._signals():
                exhausted = False
                while True:
                    while not exhausted and not self._signals_seen and self._dispatch.has_room:
                        batch = next(self._dispatch.held(), None) or next(batches, None)
                        exhausted = batch is None
                        if batch is not None:
                            self._dispatch.submit(batch)
                    if not self._dispatch.numbers and (exhausted or self._signals_seen):
                        break
                    self._take_in()
                    exhausted = exhausted and not self._dispatch.holds
                    if self._signals_seen and self._nobody_finishes():
                        self._abandon()
            self._leave(self._dispatch.held())
        finally:
            self._flush()
            self._runner.client.unsubscribe_topic(topic(self._run))
            self._send_logs()
        if self._signals_seen:
            self._extracted.stopped_by = signal.Signals(self._signals_seen[0]).name
        self._extracted.stage_seconds = spent(self._seconds.values())
        return self._extracted

    def _nobody_finishes(self) -> bool:
        """Whether the batches in hand will not end although the run was asked to stop."""
        silent_s = time.monotonic() - max(self._heard_at, self._asked_to_stop_at)
        nobody_s = max(self._workforce.nobody_for_s, min(silent_s, self._dispatch.unmoved_for_s))
        return nobody_s > _STOP_WITHOUT_WORKERS_S or silent_s > _STOP_S

    def _abandon(self) -> None:
        """Leave what is in flight to the next run; a late writer's chunk is checked by it."""
        left = self._dispatch.take_back_all()
        if left:
            self._progress.note(
                f"{len(left)} batches do not end, their clips are left to the next run"
            )
        self._leave(left)

    def _leave(self, batches: Iterable[Batch]) -> None:
        self._extracted.stopped += sum(len(batch.clips) for batch in batches)

    def _take_in(self) -> None:
        """Wait for one batch (or a moment), commit it if it is time to, and tell the progress."""
        if self._cancelled.is_set():
            threading.Thread(target=self._stop_workers, daemon=True).start()
            raise RunCancelled("the run was cancelled through Prefect")
        ended = self._dispatch.next_ended(wait_s=0.25)
        self._progress.tick()
        if not self._signals_seen:
            self._workforce.keep_up()
        if self._runner.client.status != "running":
            raise BatchLost(self._scheduler_gone())
        if ended is not None:
            self._fetch(*ended)
        for lost in self._dispatch.take_back_lost():
            self._make_again(lost, "the workers that it was given to have left")
        self._require_movement()
        if time.monotonic() - self._committed_at >= COMMIT_EVERY_S:
            self._flush()

    def _fetch(self, batch: Batch, future: Any) -> None:
        """Take in what a batch came to. Its worker may go before the result is here: then Dask has
        the batch made again, or, where none of its workers is left, `take_back_lost` does.
        """
        try:
            result = future.result(timeout=_RESULT_S)
        except Exception as error:  # whatever a worker or Dask raised: sorted out just below
            if isinstance(error, TimeoutError) and future._final_state is None:  # none was fetched
                self._dispatch.put_back()
                return
            self._on_error(batch, error)
        else:
            self._accept(batch, result)
        self._heard_at = time.monotonic()
        self._given_again = False

    def _on_error(self, batch: Batch, error: Exception) -> None:
        if isinstance(error, store.StoreError) or not worker_died(error):
            raise error
        if self._runner.client.status != "running":
            raise BatchLost(self._scheduler_gone()) from error
        self._writer.suspect(batch.number)
        self._make_again(batch, "its worker died", error)

    def _make_again(self, batch: Batch, why: str, error: Exception | None = None) -> None:
        if batch.attempt + 1 >= _ATTEMPTS:
            raise BatchLost(
                f"{batch.name} lost its worker {_ATTEMPTS} times ({error or why}): look at the "
                "machine's memory and the worker's log; its clips stay pending for the next run"
            ) from error
        if self._signals_seen:
            self._progress.note(f"{batch.name}: {why}, its clips are left to the next run")
            self._leave([batch])
            return
        self._progress.note(f"{batch.name}: {why}, the batch is made again")
        self._dispatch.hold(replace(batch, attempt=batch.attempt + 1))

    def _require_movement(self) -> None:
        """Whatever the cause, batches that idle workers do not begin are not waited for for ever."""
        unmoved_s = min(self._dispatch.unmoved_for_s, time.monotonic() - self._heard_at)
        if self._signals_seen or unmoved_s < _UNMOVED_S:
            return
        if self._given_again:
            raise BatchLost(
                f"{len(self._dispatch.numbers)} batches were given out twice, and the workers of "
                f"{self._runner.client.scheduler.address} have been idle for {unmoved_s:.0f} s: look at "
                "the scheduler's log, start it and its workers anew, and run again; the run goes on "
                "where it stood"
            )
        self._given_again = True
        back = self._dispatch.take_back_all()
        self._progress.note(
            f"{len(back)} batches have not begun for {unmoved_s:.0f} s although workers are idle: they "
            "are given out again"
        )
        for batch in back:
            self._dispatch.hold(replace(batch))

    def _scheduler_gone(self) -> str:
        return (
            f"the Dask scheduler at {self._runner.client.scheduler.address} has gone: start it "
            "and run again, the run goes on where it stood"
        )

    def _accept(self, batch: Batch, result: BatchResult) -> None:
        writer, extracted = self._writer, self._extracted
        # Batches share a worker: from its first batch's beginning to its last one's end.
        began, ended = result.worker_seconds
        first, last = self._seconds.setdefault(result.worker, (began, ended))
        self._seconds[result.worker] = (least(first, began), most(last, ended))
        extracted.write_s += result.write_s
        extracted.software |= result.software
        status = np.array(result.status)
        made = status != "stopped"
        rows = result.rows[made]
        extracted.stopped += int((~made).sum())
        if result.digests is not None and len(rows):
            every = np.arange(result.first_row, result.first_row + len(result.digests))
            members = np.isin(every, rows)
            writer.set(every[members], digest=result.digests[members])
        writer.set(
            rows,
            **{
                name: np.array(values, dtype=object if isinstance(values[0], str) else None)[made]
                for name, values in result.columns.items()
            },
        )
        writer.put_steps(rows, result.mask[made], result.frame_index[made], result.timestamp[made])
        for name, code in (("ready", READY), ("failed", FAILED)):
            chosen = status == name
            writer.mark(result.rows[chosen], code, np.array(result.reason, object)[chosen])
        if result.damaged:
            extracted.damaged += writer.unmake(result.damaged).tolist()
        extracted.ready += int((status == "ready").sum())
        extracted.failed += int((status == "failed").sum())
        extracted.frames += int(result.mask[made].sum())
        extracted.warnings.update(
            reason
            for state, reason in zip(result.status, result.reason, strict=True)
            if state == "ready" and reason
        )
        ids = writer.column("video_id")
        extracted.failures += [
            {"row": int(row), "video_id": str(ids[row]), "reason": reason, "detail": detail}
            for row, state, reason, detail in zip(
                result.rows, result.status, result.reason, result.detail, strict=True
            )
            if state == "failed"
        ]

    def _flush(self) -> None:
        started = time.monotonic()
        self._writer.flush()
        self._writer.in_flight(self._dispatch.numbers)
        self._committed_at = time.monotonic()
        self._extracted.commit_s += self._committed_at - started

    def _on_clip(self, event: tuple[float, Any]) -> None:
        clip = event[1]
        self._heard_at = time.monotonic()
        self._progress.clip(row=clip["row"], status=clip["status"], frames=clip["frames"])

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C or SIGTERM once: no new clips, finish those in hand. Twice: at once.

        Under a Prefect runner a SIGTERM is left to Prefect, which ends the flow at once: the runner
        means a cancelled run, or its own end, and waits for nothing.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handle(number: int, frame: FrameType | None) -> None:
            self._signals_seen.append(number)
            self._asked_to_stop_at = time.monotonic()
            if len(self._signals_seen) > 1:
                raise KeyboardInterrupt(signal.Signals(number).name)
            self._progress.note(
                "stopping: the clips in hand are finished and committed (once more to stop at once)"
            )
            threading.Thread(target=self._stop_workers, daemon=True).start()

        ours = [signal.SIGINT]
        if _RUN_BY_PREFECT not in os.environ:
            ours.append(signal.SIGTERM)
        before = {number: signal.signal(number, handle) for number in ours}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _send_logs(self) -> None:
        # A worker that has gone, or a scheduler, takes its last lines along: no reason to fail.
        client = self._runner.client
        within(_LOGS_S, lambda: client.run(send_logs, on_error="ignore"))

    def _stop_workers(self) -> None:
        self._runner.client.run(request_stop, self._run)
