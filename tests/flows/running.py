"""Running the commands as a user does: in processes of their own, against one Prefect server."""

from __future__ import annotations

import atexit
import contextlib
import functools
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
CLIPS = Path(os.environ.get("PIXELS_ONCE_SHARED") or ROOT.parent / "shared") / "clips"
"""Real clips; tests that need them skip where the folder is absent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """How a command ended: its exit status, standard output and standard error."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The result of a command that was run with `--json`."""
        found: dict[str, Any] = json.loads(self.out.splitlines()[-1], parse_constant=_refuse)
        return found


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


SHARED_SERVER = "TESTS_PREFECT_SERVER"
"""Environment variable: the home and the address of the server that all processes of a test run share."""


@contextlib.contextmanager
def shared_server() -> Iterator[None]:
    """Start a Prefect server for the test processes to come, which find it by the environment.

    It is started by the process that outlives them, and does not wait: they do, at their first use.
    """
    from flows.server.home import quiet_prefect
    from flows.server.lifetime import _free_port, _spawn
    from flows.server.processes import stop

    with tempfile.TemporaryDirectory(prefix="prefect-home-", ignore_cleanup_errors=True) as home:
        os.environ["PREFECT_HOME"] = home
        os.environ.pop("PREFECT_API_URL", None)
        quiet_prefect()
        port = _free_port()
        with Path(home, "server.log").open("wb") as log:
            process = _spawn(port, log)
        os.environ[SHARED_SERVER] = json.dumps([home, f"http://127.0.0.1:{port}/api"])
        try:
            yield
        finally:
            stop(process, within_s=2)


def server_home() -> Path:
    """Where the session's Prefect server keeps its database."""
    api_url()
    return Path(json.loads(os.environ[SHARED_SERVER])[0])


@functools.cache
def api_url() -> str:
    """The address of the session's Prefect server. This process's Prefect home is one of its own."""
    from flows.server.health import answers
    from flows.server.home import quiet_prefect

    if SHARED_SERVER not in os.environ:  # a test run of one process
        server = contextlib.ExitStack()
        server.enter_context(shared_server())
        atexit.register(server.close)
    _, url = json.loads(os.environ[SHARED_SERVER])
    home = tempfile.mkdtemp(prefix="prefect-home-")
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    os.environ["PREFECT_HOME"] = home
    os.environ.pop("PREFECT_API_URL", None)
    quiet_prefect()
    # Prefect's first configuration of logging closes the handlers that stand, and absl's (TensorFlow
    # brings it) closes the stream that it found at its import unless that is sys.stderr now: so not
    # under `run_here`'s redirection, where pytest's own capture would be closed.
    from prefect.logging.configuration import setup_logging

    setup_logging()
    wait_until(lambda: answers(url), limit_s=300)
    os.environ["PREFECT_API_URL"] = url
    # What Prefect read at its import holds in every thread: each would start a server of its own.
    from prefect.context import refresh_global_settings_context

    refresh_global_settings_context()
    return url


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a command's process inherits; a variable set to "" is taken away."""
    values = {
        **os.environ,
        "PREFECT_API_URL": api_url(),
        "PREFECT_HOME": os.environ["PREFECT_HOME"],
        "PYTHONPATH": str(ROOT),
        "NO_COLOR": "1",
        **(extra or {}),
    }
    return {name: value for name, value in values.items() if value}


def start(*words: str, **options: Any) -> subprocess.Popen[str]:
    """Begin `pixels-once WORDS…`; `options` are `cwd`, `env` and those of `Popen`."""
    return _started(["-m", "flows", *words], **options)


def start_code(code: str, **options: Any) -> subprocess.Popen[str]:
    """Begin Python code that runs a command with a part of it replaced."""
    return _started(["-c", code], **options)


def _started(
    words: list[str], *, cwd: Path, env: Mapping[str, str] | None = None, **options: Any
) -> subprocess.Popen[str]:
    """A process that leads a group of its own, as a shell makes it."""
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=cwd,
        env=environment(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )


def finish(process: subprocess.Popen[str], timeout_s: float = 240) -> Finished:
    """Wait for a command's end; one that does not end is killed with its whole group, and fails."""
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        raise AssertionError(f"did not end in {timeout_s} s; said: {err[-2000:]}") from None
    return Finished(status=process.returncode, out=out, err=err)


def run(
    *words: str,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 240,
    **options: Any,
) -> Finished:
    """`pixels-once WORDS…` from beginning to end."""
    return finish(start(*words, cwd=cwd, env=env, **options), timeout_s)


def run_here(*words: str) -> Finished:
    """`pixels-once WORDS…` in this process: for what does not depend on the process's end."""
    from flows.cli.main import main

    api_url()
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(words)
    return Finished(status=status, out=out.getvalue(), err=err.getvalue())
