"""A run that is cancelled in the Prefect UI (or by its API) stops as after Ctrl-C twice."""

from __future__ import annotations

import contextlib
import contextvars
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any
from uuid import UUID

from prefect import get_client
from prefect.client.schemas.objects import StateType
from prefect.context import FlowRunContext
from prefect.states import Cancelled

from flows.server.settling import end_tasks

_LOOK_EVERY_S = 1.0
_ASKED = {StateType.CANCELLING, StateType.CANCELLED}


class RunCancelled(Exception):
    """This flow run was cancelled."""


@contextlib.contextmanager
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
    with contextlib.suppress(Exception):  # cosmetic: the store is whole either way
        end_tasks(get_client(sync_client=True), context.flow_run.id, Cancelled())


def _watch(flow_run: UUID, asked: threading.Event, over: threading.Event) -> None:
    runs = [flow_run]
    client: Any = get_client(sync_client=True)
    patient = getattr(client, "patient_for", contextlib.nullcontext)
    with contextlib.suppress(Exception):
        parent = client.read_flow_run(flow_run).parent_task_run_id
        if parent is not None:  # `features` inside `refresh`: either may be cancelled
            above = client.read_task_run(parent).flow_run_id
            runs += [above] if above is not None else []
    with patient(0.0):
        while not over.wait(_LOOK_EVERY_S):
            # A server that does not answer for a while is no reason to stop the work.
            with contextlib.suppress(Exception):
                if any(client.read_flow_run(run).state_type in _ASKED for run in runs):
                    asked.set()
                    return
