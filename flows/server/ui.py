"""The Prefect server with its UI: started, waited for, and remembered for the runs to come."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator

from flows.server.home import LOOPBACK, database_environment, prefect_home, require_home
from flows.server.lifetime import await_answer, forget_ui, remember_ui
from flows.server.processes import start, stop
from pipeline.errors import ConfigError, ServiceUnavailable

EVERY_INTERFACE = ("0.0.0.0", "::")
_START_TIMEOUT_S = 300.0
_ERROR = re.compile(r"[\w.]+(Error|Exception): ")
_LOG = "pixels-once-ui.log"
_PROGRAM = (sys.executable, "-m", "prefect", "server", "start")


@contextlib.contextmanager
def prefect_ui(*, host: str, port: int, database: str = "") -> Iterator[tuple[str, int]]:
    """The UI's address and the server's process id, once it answers; it ends with the block.

    host: to listen on. database: an SQLAlchemy URL; empty: SQLite in the Prefect home.
    Runs find the server by the address in the Prefect home (`find_server`).
    Raises `ConfigError` if the port is taken, `ServiceUnavailable` if the server does not start.
    """
    api = f"http://{'127.0.0.1' if host in EVERY_INTERFACE else host}:{port}/api"
    _require_free(host, port)
    require_home()
    log = prefect_home() / _LOG
    with open(log, "wb") as out:
        process = start(
            [*_PROGRAM, "--host", host, "--port", str(port)],
            env={
                **os.environ,
                "PREFECT_HOME": str(prefect_home()),
                # Else the page looks for its API on port 4200, whatever the port is.
                "PREFECT_SERVER_UI_API_URL": api if host in LOOPBACK else "/api",
                "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
                "PREFECT_API_URL": api,
                "DO_NOT_TRACK": "1",
                "PREFECT_CLI_PROMPT": "false",
                **database_environment(database, os.environ),
            },
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        if not await_answer(process, api, _START_TIMEOUT_S):
            lines = log.read_text(errors="replace").strip().splitlines()
            # The last error that ends a traceback, else the last line.
            last = ([line for line in lines if _ERROR.match(line)] or lines or ["no output"])[-1]
            raise ServiceUnavailable(
                f"the Prefect server did not start ({last.strip()}): see {log}"
            )
        remember_ui(api)
        yield api.removesuffix("/api"), process.pid
    finally:
        forget_ui(api)
        stop(process, within_s=10)


def _require_free(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"port {port} of {host} cannot be used ({error.strerror}): choose another with "
                "PORT=, or end what holds it"
            ) from None
