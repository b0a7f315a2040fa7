"""The loop of `serve`: starts the runs that are due, one at a time, each in its own process.

Prefect's own runner starts all due runs at once, leaves them open when it is stopped, and exits after
some minutes without a server.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from prefect.client.schemas.responses import SetStateStatus
from prefect.states import Cancelled, Completed, Crashed, Pending

from flows.notices import notice
from flows.server.processes import identity, start
from flows.server.run_client import RunClient, is_owed
from flows.server.settling import end_tasks, settle
from flows.stopping import on_signals

_POLL_S = 5.0
_AT_ONCE_AFTER_S = 5.0  # a stopped run finishes the clips in hand for so long
_KILLED_AFTER_S = 30.0
_CANCELLED_AFTER_S = 15.0  # `features` sees by itself, within seconds, that it was cancelled


class Serving:
    """Runs what falls due for a deployment (its id). command: starts a process for a flow run's id."""

    def __init__(
        self, client: RunClient, deployment: UUID, command: Callable[[UUID], Sequence[str]]
    ) -> None:
        self._client, self._deployment, self._command = client, deployment, command
        self._stopping = threading.Event()
        self._away = False
        self._put_off: dict[UUID, float] = {}  # runs that the server did not let start, and when

    def run(self) -> None:
        """Run until a signal: Ctrl-C and SIGTERM stop the current run too, a second one at once."""
        with on_signals(lambda number: self.stop(), signal.SIGINT, signal.SIGTERM):
            while not self._stopping.is_set():
                due = self._next()
                if due is None:
                    self._stopping.wait(_POLL_S)
                else:
                    self._start(due)

    def stop(self) -> None:
        """Start no more runs, and end the current one."""
        self._stopping.set()

    def _next(self) -> Any:
        """The run to start now, or None. Runs that a later one has overtaken end as skipped."""
        try:
            with self._client.patient_for(0.0):
                found = self._client.get_scheduled_flow_runs_for_deployments(
                    [self._deployment], scheduled_before=datetime.now(UTC)
                )
        except Exception as error:  # whatever the server does, the schedule continues
            if not self._away:
                notice(f"{error}; asking every {_POLL_S:.0f} s")
            self._away = True
            return None
        if self._away:
            notice("the Prefect server answers again")
        self._away = False
        self._put_off = {run.id: self._put_off[run.id] for run in found if run.id in self._put_off}
        # A run that a limit holds up goes behind the others: they would never be asked for.
        now = datetime.now(UTC)
        due = sorted(
            found, key=lambda run: (self._put_off.get(run.id, 0.0), run.expected_start_time or now)
        )
        for run in due[:]:
            later = [other for other in due if _overtakes(other, run)]
            if later:
                due.remove(run)
                message = f"{later[-1].name} fell due before this could start: it does the work"
                self._set_final(run, Completed(name="Skipped", message=message))
        return due[0] if due else None

    def _start(self, run: Any) -> None:
        """Run it in its own process, and make sure that it gets a final state."""
        try:
            # So that its final state can be sent if this process is killed.
            self._client.update_flow_run_labels(run.id, dict(identity()))
            taken: Any = Pending(message=f"taken up ({uuid4().hex})")
            answer = self._client.set_flow_run_state(run.id, taken)
            if answer.status != SetStateStatus.ACCEPT:
                # It may be ours already: the first answer was lost, and we asked again.
                now = self._client.read_flow_run(run.id).state
                if now is None or not now.is_pending() or now.message != taken.message:
                    self._put_off[run.id] = time.monotonic()
                    self._stopping.wait(_POLL_S)  # cancelled meanwhile, or held up by a limit
                    return
        except Exception as error:  # it stays due, or its state is seen below
            notice(f"{run.name} was not taken up: {error}")
            self._stopping.wait(_POLL_S)
            return
        # In a session of its own: a terminal's Ctrl-C is ours to pass on.
        process = start(self._command(run.id), start_new_session=True)
        asked = self._wait(process, run.id)
        self._conclude(run, process.returncode, asked)

    def _set_final(self, run: Any, end: Any) -> None:
        """Set a run's final state; if the server refuses it, the schedule continues."""
        try:
            self._client.set_flow_run_state(run.id, end, force=True)
        except Exception as error:  # deleted, or no answer: settled later
            notice(f"{run.name} could not be set to {end.name}: {error}")

    def _wait(self, process: subprocess.Popen[bytes], run_id: UUID) -> bool:
        """Until the process has ended; whether it was asked to end."""
        cancelled_at: float | None = None
        looked = time.monotonic()
        while process.poll() is None:
            now = time.monotonic()
            late = cancelled_at is not None and now - cancelled_at > _CANCELLED_AFTER_S
            if self._stopping.is_set() or late:
                self._end(process)
                return True
            if now - looked > _POLL_S:
                looked = now
                if cancelled_at is None and self._is_cancelled(run_id):
                    cancelled_at = now
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.2)
        return cancelled_at is not None

    def _is_cancelled(self, run_id: UUID) -> bool:
        with contextlib.suppress(Exception), self._client.patient_for(0.0):
            state = self._client.read_flow_run(run_id).state
            return state is not None and (state.is_cancelling() or state.is_cancelled())
        return False

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """Ask the run to end: first in order, then at once, then by force."""
        for patience in (_AT_ONCE_AFTER_S, _KILLED_AFTER_S):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=patience)
                return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def _conclude(self, run: Any, status: int, asked: bool) -> None:
        """Give the run a final state if its process has not."""
        if is_owed(run.id):  # it ended, while no server answered
            with contextlib.suppress(Exception):
                settle(self._client)
            return
        try:
            state = self._client.read_flow_run(run.id).state
        except Exception:  # deleted, or no answer: then the end is owed
            state = None
        if state is not None and state.is_final():
            return
        end: Any = Crashed(message=f"its process ended with status {status} and did not say how")
        if asked:
            end = Cancelled(message="stopped: the store is whole, the next run goes on")
        self._set_final(run, end)
        with contextlib.suppress(Exception):  # the next run does it
            end_tasks(self._client, run.id, end)


def _overtakes(one: Any, other: Any) -> bool:
    """Whether one scheduled run does what the other would have done earlier."""
    return bool(
        one.auto_scheduled
        and other.auto_scheduled
        and one.parameters == other.parameters
        and (one.expected_start_time, str(one.id)) > (other.expected_start_time, str(other.id))
    )
