"""A Prefect task: one batch after the other on one Dask worker, each reported as soon as it is written.

What Prefect and Dask cost is paid per task, so a run of very many clips puts several batches in one.
The batch is the unit of loss all the same: its result travels ahead of the task's end, as an event.
"""

from __future__ import annotations

import pickle
import threading
from collections import Counter
from typing import Any
from uuid import UUID

from prefect import State, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import MissingContextError
from prefect.task_engine import run_task_sync

from flows.extract.batches import extract_batch, stop_event, this_worker, topic, worker_name
from flows.extract.task_context import within_run
from flows.extract.values import Batch, BatchResult

MOST_BATCHES = 16
_TASKS = 64  # of a run, before they become larger
_TASKS_LEFT = 4  # for each batch that the workers run at once, so that they end together
_LOGGED_FAILURES = 20


def batches_per_task(total: int, left: int, threads: int) -> int:
    """How many batches the next task has. Pure.

    total: batches of the run. left: those not given out yet. threads: tasks that the workers run at once.

    >>> batches_per_task(total=63, left=63, threads=2)
    1
    >>> batches_per_task(total=1563, left=1563, threads=2), batches_per_task(1563, 24, 2)
    (16, 3)
    >>> batches_per_task(total=1563, left=1563, threads=256)
    1
    """
    even = left // max(1, _TASKS_LEFT * threads)
    return max(1, min(MOST_BATCHES, total // _TASKS, even))


def packed(value: Any) -> bytes:
    """A value as bytes: Prefect and Dask look into every other parameter, field by field, many times."""
    return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)


def unpacked(data: bytes) -> Any:
    """What `packed` made, in another process of this run."""
    return pickle.loads(data)


@task(name="batch", task_run_name="{name}", retries=0, cache_policy=NO_CACHE, persist_result=False)
def extract_batches(name: str, number: int, batches: bytes) -> list[bytes]:
    """Extract these batches in turn (a packed list of `Batch`); returns their packed `BatchResult`s.

    name: of the Prefect task. number: of the task in its run. Each result is sent as an event before the
    next batch begins. Batches that are not begun when the run stops, or when the flow has withdrawn the
    task, have none. Raises as `extract_batch`.
    """
    results: list[bytes] = []
    counts: Counter[str] = Counter()
    failures: list[str] = []
    given: list[Batch] = unpacked(batches)
    _send(given[0].run, {"task": number, "worker": worker_name(), "result": b""})
    for batch in given:
        if _is_over(batch, number):
            break
        result = extract_batch(batch)
        results.append(packed(result))
        _send(batch.run, {"task": number, "result": results[-1]})
        for part, its in zip(batch.parts, result.parts, strict=True):
            counts.update(its.status)
            failures += _failures(part, its)
    _log(name, counts, failures)
    return results


def run_as_task(
    context: bytes, task_run: UUID, name: str, number: int, batches: bytes
) -> State[list[bytes]]:
    """Run `extract_batches` as a task of the flow run whose `context_of_run` this is; its final state.

    What Prefect's own submission does on a worker. There the flow would serialise all of its settings
    for every task: two thirds of what a task costs it.
    """

    def run(hydrated: dict[str, Any]) -> Any:
        return run_task_sync(
            task=extract_batches,
            task_run_id=task_run,
            parameters={"name": name, "number": number, "batches": batches},
            return_type="state",
            dependencies={},
            context=hydrated,
        )

    state = within_run(context, run)
    assert isinstance(state, State)
    return state


_lock = threading.Lock()
_withdrawn: set[tuple[str, int]] = set()


def withdraw(run: str, numbers: list[int]) -> None:
    """Have these tasks of a run end after their batch in work, in this process."""
    with _lock:
        _withdrawn.update((run, number) for number in numbers)


def _is_over(batch: Batch, number: int) -> bool:
    """Whether no other batch is to be begun: the run stops, or the flow gave them to another worker."""
    worker = this_worker()
    with _lock:
        is_withdrawn = (batch.run, number) in _withdrawn
    cut_off = worker is not None and worker.status.name not in ("running", "paused")
    return is_withdrawn or cut_off or stop_event(batch.run).is_set()


def _send(run: str, event: dict[str, Any]) -> None:
    worker = this_worker()
    if worker is not None:
        worker.log_event(topic(run), event)


def _failures(batch: Batch, result: BatchResult) -> list[str]:
    each = zip(batch.clips, result.status, result.reason, result.detail, strict=True)
    return [
        f"{clip.id} failed (row {clip.row}): {reason} {detail}"
        for clip, status, reason, detail in each
        if status == "failed"
    ]


def _log(name: str, counts: Counter[str], failures: list[str]) -> None:
    try:
        logger = get_run_logger()
    except MissingContextError:  # not in a run: a test calls the task's function directly
        return
    outcome = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    logger.info("%s: %s (on %s)", name, outcome, worker_name())
    for line in failures[:_LOGGED_FAILURES]:
        logger.warning("%s", line)
