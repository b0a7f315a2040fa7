"""How a run ends for the Prefect server: cancelled there, or an end that the server did not receive.

A run whose process was killed cannot send its own, nor one that ended while no server answered: the next
run, `ui` and `serve` do. Only runs whose labels name a process of this host are changed, and those whose
final state waits in this Prefect home.
"""

from __future__ import annotations

import contextvars
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowRunFilter, TaskRunFilter
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Completed, Crashed

from flows.notices import notice
from flows.server.processes import describe, has_gone
from flows.server.run_client import owed_folder, own_run
from flows.server.run_page import RunPage


def _in_state(*types: str) -> dict[str, Any]:
    return {"state": {"type": {"any_": types}}}


_OURS = FlowFilter.model_validate({"name": {"any_": ["features", "refresh", "sweep", "train"]}})
_OPEN = FlowRunFilter.model_validate(_in_state("PENDING", "RUNNING", "CANCELLING"))
_ENDED = FlowRunFilter.model_validate(_in_state("COMPLETED", "FAILED", "CRASHED", "CANCELLED"))
_OPEN_TASKS = TaskRunFilter.model_validate(_in_state("PENDING", "RUNNING"))
_KEPT_S = 30 * 86_400.0
_AT_ONCE = 200


def settle(client: Any) -> list[str]:
    """Send the final state of every run that has ended without one; returns their names."""
    settled = _send_kept(client) + _end_crashed(client)
    for run, state in settled:
        end_tasks(client, run.id, state)
    _end_lost_tasks(client)
    return [run.name for run, _ in settled]


@contextmanager
def run_page() -> Iterator[RunPage]:
    """The flow run's page, to be entered first: labels the run, and sends the ends of earlier ones."""
    own_run()
    with RunPage() as page:
        page.add("the ends of earlier runs", lambda: settle(get_client(sync_client=True)))
        yield page


def settle_aloud(client: Any) -> None:
    """`settle`, with a notice of each run; not if the server refuses: the runs to come do it as well."""
    with suppress(Exception):
        for name in settle(client):
            notice(f"{name} had ended without saying so")


def end_tasks(client: Any, flow_run: UUID, state: State[Any]) -> None:
    """Give the tasks of an ended flow run that still count as open the end of their flow."""
    chosen = FlowRunFilter.model_validate({"id": {"any_": [flow_run]}})
    end = Completed if state.is_completed() else Cancelled if state.is_cancelled() else Crashed
    for task in client.read_task_runs(
        flow_run_filter=chosen, task_run_filter=_OPEN_TASKS, limit=_AT_ONCE
    ):
        with suppress(ObjectNotFound):
            client.set_task_run_state(task.id, end(message="ended with its run"), force=True)


def _end_lost_tasks(client: Any) -> None:
    """End the tasks of ended runs whose own end the server has lost: it travels as an event.

    A run's process must have gone, so that nothing of it is still on its way.
    """
    found = client.read_task_runs(
        flow_filter=_OURS, flow_run_filter=_ENDED, task_run_filter=_OPEN_TASKS, limit=_AT_ONCE
    )
    for run_id in {task.flow_run_id for task in found}:
        with suppress(ObjectNotFound):
            run = client.read_flow_run(run_id)
            if has_gone(run.labels):
                end_tasks(client, run_id, run.state)


def _send_kept(client: Any) -> list[tuple[FlowRun, State[Any]]]:
    """Send the final states that wait in this Prefect home."""
    sent = []
    for path in sorted(owed_folder().glob("*.json")):
        found = _owed(path)
        if found is None:
            path.unlink(missing_ok=True)
            continue
        run_id, state, at = found
        try:
            run = client.read_flow_run(run_id)
        except ObjectNotFound:  # deleted, or of another server
            if time.time() - at > _KEPT_S:
                path.unlink(missing_ok=True)
            continue
        if run.state is None or not run.state.is_final():
            client.set_flow_run_state(run_id, state, force=True)
            sent.append((run, state))
        path.unlink(missing_ok=True)
    return sent


def _owed(path: Path) -> tuple[UUID, State[Any], float] | None:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        state: State[Any] = State(
            type=StateType(values["type"]), name=values["name"], message=values["message"]
        )
        return UUID(values["flow_run"]), state, float(values["at"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # half a file: nothing is known from it


def _end_crashed(client: Any) -> list[tuple[FlowRun, State[Any]]]:
    """End runs whose process has gone as crashed, or as cancelled if that was asked for."""
    ended_runs = []
    for run in client.read_flow_runs(flow_filter=_OURS, flow_run_filter=_OPEN, limit=_AT_ONCE):
        if not has_gone(run.labels):
            continue
        cause = f"{describe(run.labels)} has gone"
        if run.state is not None and run.state.is_cancelling():
            state: State[Any] = Cancelled(message=cause)
        else:
            state = Crashed(message=f"{cause}: the run did not end by itself")
        with suppress(ObjectNotFound):
            client.set_flow_run_state(run.id, state, force=True)
            ended_runs.append((run, state))
    return ended_runs


_LOOK_EVERY_S = 1.0
_ASKED = {StateType.CANCELLING, StateType.CANCELLED}


@contextmanager
def watched_for_cancelling() -> Iterator[threading.Event]:
    """An event that is set within seconds once someone cancels the flow run that this is in.

    Prefect itself signals only runs that a worker or `serve` has started; this is for the others.
    """
    asked, over = threading.Event(), threading.Event()
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        yield asked
        return
    # Without the context a thread knows neither the server nor the client, and starts a server.
    watch = partial(contextvars.copy_context().run, _watch, context.flow_run.id, asked, over)
    thread = threading.Thread(target=watch, name="cancel-watch", daemon=True)
    thread.start()
    try:
        yield asked
    finally:
        over.set()
        thread.join(timeout=5)


def is_scheduled() -> bool:
    """Whether this flow run was made by a schedule, or by hand from a deployment."""
    context = FlowRunContext.get()
    return bool(context and context.flow_run and context.flow_run.deployment_id)


def end_open_tasks() -> None:
    """Mark the batches of this flow run that were cut off as cancelled: nothing else would."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    with suppress(Exception):  # cosmetic: the store is whole either way
        end_tasks(get_client(sync_client=True), context.flow_run.id, Cancelled())


def _watch(flow_run: UUID, asked: threading.Event, over: threading.Event) -> None:
    runs = [flow_run]
    client: Any = get_client(sync_client=True)
    patient = getattr(client, "patient_for", nullcontext)
    with suppress(Exception):
        parent = client.read_flow_run(flow_run).parent_task_run_id
        if parent is not None:  # `features` inside `refresh`: either may be cancelled
            above = client.read_task_run(parent).flow_run_id
            runs += [above] if above is not None else []
    with patient(0.0):
        while not over.wait(_LOOK_EVERY_S):
            # A server that does not answer for a while is no reason to stop the work.
            with suppress(Exception):
                if any(client.read_flow_run(run).state_type in _ASKED for run in runs):
                    asked.set()
                    return
