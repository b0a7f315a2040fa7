"""One Prefect server per run: the user's where there is one, else a temporary one.

Every process of a run must talk to the same server. Without `PREFECT_API_URL` each Dask worker
would start a server of its own on the same SQLite file ("database is locked").
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from flows.imports import collection_paused
from flows.notices import notice
from flows.server.health import answers, refusal_in_the_end
from flows.server.home import prefect_home, quiet_prefect, require_home
from flows.server.processes import start, stop
from pipeline.errors import PixelsError, ServiceUnavailable

USUAL_URL = "http://127.0.0.1:4200/api"
# A first start on a cold, busy machine imports for minutes; a server that has exited is known at once.
_START_TIMEOUT_S = 900.0
_SHOW_WAIT_EVERY_S = 10.0
_STOP_S = 2.0


class RunCancelled(PixelsError):
    """A flow run was cancelled through Prefect."""

    exit_status = 130


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where a run reports to. `temporary` servers have no page to look at."""

    url: str
    temporary: bool

    @property
    def page(self) -> str:
        """Address of the Prefect UI, or empty."""
        return "" if self.temporary else self.url.removesuffix("/api")


def find_server() -> Server | None:
    """The server of `PREFECT_API_URL` or of the active Prefect profile, else the one that
    `make ui` started, else one on port 4200.
    """
    configured = os.environ.get("PREFECT_API_URL") or _profile_url()
    if configured:
        found = refusal_in_the_end(configured)
        if found is not None:
            raise ServiceUnavailable(
                f"no Prefect server answers at {configured} ({found.why}): start it (`make ui`), "
                "or unset PREFECT_API_URL to use a temporary one"
            )
        return Server(url=configured, temporary=False)
    for url in (_remembered_ui(), USUAL_URL):
        if url and answers(url):
            return Server(url=url, temporary=False)
    return None


def remember_ui(url: str) -> None:
    """Write the address of a server into the Prefect home, where later runs look for one."""
    _ui_file().write_text(url + "\n", encoding="utf-8")


def forget_ui(url: str) -> None:
    """Remove the address, if it is still this one."""
    if _remembered_ui() == url:
        _ui_file().unlink(missing_ok=True)


@contextlib.contextmanager
def prefect_server(
    *, optional: bool = False, beside: Callable[[str], object] | None = None
) -> Iterator[Server | None]:
    """The server for one run, with `PREFECT_API_URL` set for all child processes.

    With `optional`, no server is started if none answers (training and prediction just run). Prints
    where the run can be watched. Raises `RunCancelled` if the run is cancelled through Prefect.
    beside: called with the server's address while the server starts, which takes seconds; again if
    another address has to be tried. A temporary server keeps its history in the user's Prefect home, so
    that `make ui` shows it.
    """
    quiet_prefect()
    server = find_server()
    if server is None and optional:
        yield None
        return
    process: subprocess.Popen[bytes] | None = None
    if server is None:
        require_home()
        process, server = _start_temporary(beside)
    elif beside is not None:
        beside(server.url)
    before = os.environ.get("PREFECT_API_URL")
    os.environ["PREFECT_API_URL"] = server.url
    try:
        # The settings that Prefect read at its import would win over the environment set above.
        from prefect.settings import PREFECT_API_URL, temporary_settings

        from flows.server.run_client import patient_client

        if server.page:
            notice(f"watch: {server.page}")
        with (
            cancelled_raised(),
            temporary_settings({PREFECT_API_URL: server.url}),
            patient_client(),
            drained(),
        ):
            yield server
    finally:
        if before is None:
            os.environ.pop("PREFECT_API_URL", None)
        else:
            os.environ["PREFECT_API_URL"] = before
        if process is not None:
            stop(process, _STOP_S)


def _ui_file() -> Path:
    return prefect_home() / "pixels-once-ui.url"


def _remembered_ui() -> str:
    try:
        return _ui_file().read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _profile_url() -> str:
    # Reading the profile costs Prefect's import (a second): only where a profile exists.
    if not (prefect_home() / "profiles.toml").exists():
        return ""
    from prefect.settings import PREFECT_API_URL

    return PREFECT_API_URL.value() or ""


def importing(*modules: str) -> Callable[[str], None]:
    """For `prefect_server(beside=…)`: imports these modules."""

    def beside(url: str) -> None:
        with collection_paused():
            for module in modules:
                importlib.import_module(module)

    return beside


def _start_temporary(
    beside: Callable[[str], object] | None = None,
) -> tuple[subprocess.Popen[bytes], Server]:
    for attempt in range(3):
        port = _free_port()
        server = Server(url=f"http://127.0.0.1:{port}/api", temporary=True)
        with tempfile.TemporaryFile() as log:
            process = _spawn(port, log)
            try:
                if beside is not None:
                    beside(server.url)
                what = "the temporary Prefect server"
                if await_answer(process, server.url, _START_TIMEOUT_S, what=what):
                    return process, server
            except BaseException:  # Ctrl-C while it starts
                stop(process, _STOP_S)
                raise
            last = _last_lines(log)
            if process.poll() is None:
                stop(process, _STOP_S)
                raise ServiceUnavailable(
                    f"the temporary Prefect server gave no answer in {_START_TIMEOUT_S:.0f} s{last}: "
                    "run `prefect server start` to see why, or set PREFECT_API_URL to one that runs"
                )
            # Rarely the port is taken between our look and the server's bind: once more.
            if "address already in use" not in last or attempt == 2:
                raise ServiceUnavailable(
                    f"the temporary Prefect server ended with status {process.returncode}{last}: "
                    "run `prefect server start` to see more, or set PREFECT_API_URL to one that runs"
                )
    raise AssertionError("unreachable")


def _spawn(port: int, log: IO[bytes]) -> subprocess.Popen[bytes]:
    # -P: a folder `flows` where the user is must not be taken for ours.
    return start(
        [sys.executable, "-P", "-m", "flows.server.api", "127.0.0.1", str(port)],
        env={
            **os.environ,
            "PREFECT_UI_ENABLED": "0",
            "PREFECT__SERVER_EPHEMERAL": "1",
            "PREFECT__SERVER_FINAL": "1",
            "PREFECT_LOGGING_LEVEL": "CRITICAL",
            # Why it ended, if it does; `quiet_prefect` has set the handler's own level higher.
            "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
            "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "ERROR",
        },
        stdout=log,
        stderr=log,
        # Out of reach of what a terminal sends to our group: the run ends it, or its own end.
        start_new_session=True,
    )


def await_answer(
    process: subprocess.Popen[bytes], url: str, limit_s: float, *, what: str = ""
) -> bool:
    """Whether the server answers, before it exits or takes too long. what: its name, in notices."""
    begun = time.monotonic()
    shown = 0.0
    while process.poll() is None and (waited := time.monotonic() - begun) < limit_s:
        if answers(url):
            return True
        if what and waited - shown >= _SHOW_WAIT_EVERY_S:
            shown = waited
            notice(f"{what} is starting: {waited:.0f} s")
        time.sleep(0.05)
    return False


def _last_lines(log: IO[bytes]) -> str:
    """The last lines that the server wrote, in brackets after a space; or empty."""
    log.seek(0)
    lines = [line.strip() for line in log.read().decode(errors="replace").splitlines()]
    text = " · ".join([line for line in lines if line][-3:])
    return f" ({text[-500:]})" if text else ""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def cancelled_raised() -> Iterator[None]:
    """Raise `RunCancelled` for Prefect's `CancelledRun`, which has no exit status."""
    from prefect.exceptions import CancelledRun

    try:
        yield
    except CancelledRun as cancelled:
        raise RunCancelled(str(cancelled)) from None


@contextlib.contextmanager
def drained() -> Iterator[None]:
    """Send what Prefect has queued (logs, events) first: else a stopped server holds the process up."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    # Prefect would write two lines to standard error for every handful of log lines that it loses.
    raising, logging.raiseExceptions = logging.raiseExceptions, False
    try:
        yield
    finally:
        APILogWorker.drain_all(timeout=2)
        EventsWorker.drain_all(timeout=2)
        logging.raiseExceptions = raising
