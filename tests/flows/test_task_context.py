"""What Prefect has around each task of a run: made once a thread, and that of the task's own run."""

from __future__ import annotations

import pickle
import ssl
import threading
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext, TaskRunContext
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_EXTRA_LOGGERS, temporary_settings
from prefect.task_engine import run_task_sync

from flows.extract.task_context import context_of_run, within_run


@task(cache_policy=NO_CACHE, persist_result=False)
def seen() -> tuple[str, str, str]:
    """What a task can tell of its surroundings: the run, a setting of the run, the server."""
    run = FlowRunContext.get()
    assert run is not None
    assert run.flow_run is not None
    assert TaskRunContext.get() is not None
    extra = PREFECT_LOGGING_EXTRA_LOGGERS.value()
    return str(run.flow_run.id), str(extra), str(PREFECT_API_URL.value())


def in_a_thread(call: Callable[[], Any]) -> Any:
    """What it returns, run in a new thread, where no run is known."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(call()))
    thread.start()
    thread.join()
    return results[0]


def run_task(context: bytes, way: Callable[..., Any] = within_run) -> Any:
    def run(hydrated: dict[str, Any]) -> Any:
        return run_task_sync(
            task=seen, task_run_id=uuid4(), parameters={}, dependencies={}, context=hydrated
        )

    return way(context, run)


def by_prefect_alone(context: bytes, call: Callable[[dict[str, Any]], Any]) -> Any:
    return call(pickle.loads(context))


@flow
def with_context() -> tuple[str, bytes]:
    run = FlowRunContext.get()
    assert run is not None
    assert run.flow_run is not None
    return str(run.flow_run.id), context_of_run()


@pytest.fixture(scope="module")
def two_runs(prefect_api: str) -> list[tuple[str, bytes]]:
    """Ids and contexts of two runs, each with a setting of its own."""
    runs = []
    for name in ("first", "second"):
        with temporary_settings(
            {PREFECT_LOGGING_EXTRA_LOGGERS: name, PREFECT_API_URL: prefect_api}
        ):
            runs.append(with_context())
    return runs


def test_a_task_sees_its_run_and_its_settings_as_by_prefect_alone(two_runs, prefect_api) -> None:
    for number, context in two_runs:
        expected = in_a_thread(lambda: run_task(context, by_prefect_alone))  # noqa: B023
        assert in_a_thread(lambda: run_task(context)) == expected  # noqa: B023
        assert expected[0] == number
        assert expected[2] == prefect_api
    assert "first" in in_a_thread(lambda: run_task(two_runs[0][1]))[1]


def test_a_thread_changes_from_one_run_to_another_and_back(two_runs) -> None:
    order = [0, 0, 1, 0, 1, 1]

    def tasks() -> list[Any]:
        return [run_task(two_runs[number][1]) for number in order]

    results = in_a_thread(tasks)
    assert [result[0] for result in results] == [two_runs[number][0] for number in order]
    assert ["second" in result[1] for result in results] == [number == 1 for number in order]


def test_the_second_task_of_a_thread_makes_no_client(two_runs, monkeypatch) -> None:
    made = []
    make = ssl.create_default_context
    monkeypatch.setattr(
        ssl, "create_default_context", lambda *a, **k: made.append(a) or make(*a, **k)
    )

    def tasks() -> list[int]:
        counts = []
        for _ in range(3):
            run_task(two_runs[0][1])
            counts.append(len(made))
        return counts

    first, *later = in_a_thread(tasks)
    assert first > 0, "the count sees what is made"
    assert later == [first, first]


def test_tasks_of_many_threads_at_once_do_not_meet(two_runs) -> None:
    results: list[tuple[int, Any]] = []

    def tasks(number: int) -> None:
        for turn in range(6):
            which = (number + turn) % 2
            results.append((which, run_task(two_runs[which][1])))

    threads = [threading.Thread(target=tasks, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 24
    assert all(result[0] == two_runs[which][0] for which, result in results)


def test_an_error_of_a_task_leaves_the_thread_to_the_next(two_runs) -> None:
    def tasks() -> Any:
        with pytest.raises(ZeroDivisionError):
            within_run(two_runs[0][1], lambda hydrated: 1 / 0)
        return run_task(two_runs[0][1])

    assert in_a_thread(tasks)[0] == two_runs[0][0]


def test_a_context_that_cannot_be_read_leaves_the_thread_to_the_next(two_runs, monkeypatch) -> None:
    made = []
    make = ssl.create_default_context
    monkeypatch.setattr(
        ssl, "create_default_context", lambda *a, **k: made.append(a) or make(*a, **k)
    )

    def tasks() -> list[int]:
        run_task(two_runs[0][1])
        with pytest.raises(pickle.UnpicklingError):
            run_task(b"no context")
        counts = []
        for _ in range(2):
            assert run_task(two_runs[0][1])[0] == two_runs[0][0]
            counts.append(len(made))
        return counts

    first, second = in_a_thread(tasks)
    assert first == second, "a client that is closed is not kept"
