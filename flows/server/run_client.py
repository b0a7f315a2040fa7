"""A run's client of the Prefect server: it retries for a while, and sending the final state never fails.

The server shows a run, it is not needed for it: once a run has begun, no response of the server, and no
lack of one, ends it. A final state that the server does not accept is kept in the Prefect home, and
`flows.server.settling` sends it later.
"""

from __future__ import annotations

import contextlib
import contextvars
import json
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from prefect.client.base import PrefectHttpxSyncClient
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import State
from prefect.client.schemas.responses import OrchestrationResult, SetStateStatus, StateAcceptDetails
from prefect.context import FlowRunContext, SyncClientContext
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError, TerminationSignal
from prefect.states import Cancelled, Crashed

from flows.notices import notice
from flows.server.home import prefect_home
from flows.server.processes import identity
from flows.stopping import scheduled

PATIENCE_S = 60.0
_SHORT_S = 5.0  # for responses that rarely change, and for a process that is being stopped
_REPORTED_AFTER_S = 3.0
_PAUSES_S = (0.1, 0.3, 1.0, 2.0, 5.0)
_ANSWERS = {404, 405, 409, 410, 422}  # about the request: a retry changes nothing

_patience = contextvars.ContextVar("patience", default=float("inf"))


class ServerUnavailable(RuntimeError):
    """The Prefect server did not accept a request that a run cannot start without."""

    exit_status = 4


class _PatientHttp(PrefectHttpxSyncClient):
    """Retries a request until it is answered or its time is over."""

    patience_s: float = PATIENCE_S

    def _send_with_retry(  # type: ignore[override]
        self,
        request: httpx.Request,
        send: Callable[..., httpx.Response],
        send_args: tuple[Any, ...],
        send_kwargs: dict[str, Any],
        **others: Any,
    ) -> httpx.Response:
        began, tries, is_reported = time.monotonic(), 0, False
        while True:
            most = min(self.patience_s, _patience.get())
            try:
                if self.enable_csrf_support and request.method != "GET":
                    self._add_csrf_headers(request)
                response = send(request, *send_args, **send_kwargs)
            except httpx.RequestError as error:
                problem: str | httpx.RequestError = error
                patience = most
            else:
                code = response.status_code
                if response.is_success or code in _ANSWERS:
                    return response
                if code == 403 and "CSRF" in response.text:
                    self.csrf_token = None
                problem = f"it answers {code}"
                busy = code >= 500 or code in (408, 429)
                patience = most if busy else min(_SHORT_S, most)
            spent = time.monotonic() - began
            if spent >= patience:
                if isinstance(problem, httpx.RequestError):
                    raise problem
                return response
            if not is_reported and spent >= _REPORTED_AFTER_S:
                is_reported = True
                # `patience` is the longest that this may take from the beginning.
                why = problem if isinstance(problem, str) else "it does not answer"
                notice(f"waiting up to {patience:.0f} s for the Prefect server ({why}) …")
            time.sleep(min(_PAUSES_S[min(tries, len(_PAUSES_S) - 1)], patience - spent))
            tries += 1


class RunClient(SyncPrefectClient):
    """Prefect's client with retries, for one run. `begun`: ids of the flow runs that it has created."""

    begun: list[str]

    def request(
        self, method: Any, path: Any, params: Any = None, path_params: Any = None, **kwargs: Any
    ) -> httpx.Response:
        """As the parent's; a new flow run is labelled with this process, and created only once."""
        if (method, path) == ("POST", "/flow_runs/"):
            kwargs["json"] = kwargs["json"] | {
                "labels": kwargs["json"].get("labels", {}) | identity(),
                "idempotency_key": uuid.uuid4().hex,
            }
        try:
            response = super().request(method, path, params, path_params, **kwargs)
            if (method, path) == ("POST", "/flow_runs/"):
                self.begun.append(response.json()["id"])
            return response
        except (httpx.RequestError, PrefectHTTPStatusError) as error:
            problem = f"does not answer {method} {path} ({type(error).__name__})"
            if isinstance(error, PrefectHTTPStatusError):
                if error.response.status_code in _ANSWERS:
                    raise
                problem = f"answers {error.response.status_code} to {method} {path}"
            raise ServerUnavailable(
                f"the Prefect server at {str(self.api_url).rstrip('/')} {problem}: look at its log, "
                "start it again, or unset PREFECT_API_URL to use a temporary one"
            ) from error

    def set_flow_run_state(
        self, flow_run_id: Any, state: State[Any], force: bool = False
    ) -> OrchestrationResult[Any]:
        """As the parent's; a final state counts as accepted whatever the server answers."""
        if not state.is_final():
            return super().set_flow_run_state(flow_run_id, state, force)
        cut_off = state.is_crashed()
        asked = isinstance(sys.exc_info()[1], KeyboardInterrupt | TerminationSignal)
        if cut_off and asked and scheduled.is_set():
            state = Cancelled(message="stopped: the store is whole, the next run goes on")
        # Who stops this process does not wait for long.
        patience = self.patient_for(_SHORT_S) if cut_off else contextlib.nullcontext()
        try:
            with patience:
                return super().set_flow_run_state(flow_run_id, state, force)
        except ObjectNotFound:
            notice("this run was deleted from the Prefect server meanwhile; its work is done")
        except (Exception, KeyboardInterrupt) as error:  # the work is done: nothing may fail it now
            owe(flow_run_id, state, str(self.api_url))
            why = "not waited for" if isinstance(error, KeyboardInterrupt) else str(error)
            notice(
                f"the Prefect server did not accept this run's final state ({state.name}): {why}; "
                "it will be reported by the next run, `ui` or `serve`"
            )
        return OrchestrationResult(
            status=SetStateStatus.ACCEPT, state=state, details=StateAcceptDetails()
        )

    @contextlib.contextmanager
    def patient_for(self, seconds: float) -> Any:
        """Within the block, this thread retries for at most so many seconds."""
        before = _patience.set(seconds)
        try:
            yield self
        finally:
            _patience.reset(before)

    @contextlib.contextmanager
    def hurried(self, seconds: float) -> Any:
        """Within the block, no thread of this client retries for longer."""
        http: Any = self._client
        before, http.patience_s = http.patience_s, min(seconds, http.patience_s)
        try:
            yield self
        finally:
            http.patience_s = before


def made_patient(client: SyncPrefectClient, patience_s: float | None = None) -> RunClient:
    """The same client as a `RunClient`: Prefect makes the clients of a run itself."""
    found: Any = client
    if not isinstance(client, RunClient):
        found.__class__ = RunClient
        found._client.__class__ = _PatientHttp
        found.begun = []
        if patience_s is not None:
            found._client.patience_s = patience_s
    return found  # type: ignore[no-any-return]


@contextlib.contextmanager
def patient_client() -> Any:
    """A `RunClient` for whatever talks to the server within the block, flows and artifacts too."""
    context = SyncClientContext()
    client = made_patient(context.client)
    with context:
        try:
            yield client
        except ServerUnavailable as error:  # it took the run, but not its beginning
            for run in client.begun:
                owe(run, Crashed(message=str(error)), str(client.api_url))
            raise


def own_run() -> None:
    """To be called first in a flow: labels the run with this process, and makes its client patient.

    Runs that Prefect or `serve` starts are made by the server, and so are their clients by Prefect.
    """
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or context.client is None:
        return
    client = made_patient(context.client)  # type: ignore[arg-type]
    mine: Any = identity()
    if mine.items() <= dict(context.flow_run.labels or {}).items():
        return
    with contextlib.suppress(Exception), client.patient_for(_SHORT_S):  # only for settling
        client.update_flow_run_labels(context.flow_run.id, mine)


def owed_folder() -> Path:
    """The folder of final states that no server has accepted yet."""
    return prefect_home() / "pixels-once-owed"


def is_owed(flow_run_id: Any) -> bool:
    """Whether a final state of this run waits to be sent."""
    return (owed_folder() / f"{flow_run_id}.json").exists()


_owing = threading.Lock()


def owe(flow_run_id: Any, state: State[Any], server: str) -> None:
    """Keep a run's final state in the Prefect home, to be sent later; not in one that is read-only."""
    values = {
        "flow_run": str(flow_run_id),
        "server": server,
        "type": state.type.value,
        "name": state.name,
        "message": state.message or "",
        "at": time.time(),
    }
    path = owed_folder() / f"{flow_run_id}.json"
    with _owing, contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(values), encoding="utf-8")
        part.replace(path)
