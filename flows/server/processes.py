"""Which process a flow run belongs to, whether that process still exists, and programs that end with it.

`python -m flows.server.processes PARENT_PID PROGRAM ARG…` asks the kernel (Linux) for a SIGTERM at the
parent's death, then becomes the program. So even a SIGKILL of a run leaves no server behind.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import psutil

_PREFIX = "pixels-once."
Identity = dict[str, str]
"""Labels of a flow run: host, boot, processes (the PID namespace), pid, started."""


def identity(pid: int | None = None) -> Identity:
    """Labels that mark a flow run as one of this process (or of `pid`)."""
    number = pid or os.getpid()
    values = {**_machine(), "pid": str(number), "started": _started(number)}
    return {_PREFIX + name: value for name, value in values.items()}


def has_gone(labels: Mapping[str, Any]) -> bool:
    """Whether the process that these labels name has certainly ended.

    False for labels of another host or container, for incomplete ones, and for another boot if the host
    has no machine-id: nothing can be said about those from here.
    """
    found = {name: str(labels.get(_PREFIX + name, "")) for name in (*_machine(), "pid", "started")}
    here = _machine()
    if not all(found.values()) or found["host"] != here["host"]:
        return False
    if found["boot"] != here["boot"]:
        # Containers that share a host's name and have no machine-id may be of two machines.
        return not found["host"].endswith("/")
    if found["processes"] != here["processes"]:
        return False
    return _started(int(found["pid"])) != found["started"]


def describe(labels: Mapping[str, Any]) -> str:
    """The process for a message, e.g. `process 4711 on worker-3`."""
    host = str(labels.get(f"{_PREFIX}host", "")).split("/")[0]
    return f"process {labels.get(f'{_PREFIX}pid', '?')} on {host or 'an unknown machine'}"


@functools.cache
def _machine() -> dict[str, str]:
    try:
        processes = os.readlink("/proc/self/ns/pid")
    except OSError:
        processes = platform.system()
    return {
        "host": f"{socket.gethostname()}/{_read('/etc/machine-id')}",
        "boot": _read("/proc/sys/kernel/random/boot_id") or f"{psutil.boot_time():.0f}",
        "processes": processes,
    }


def _started(pid: int) -> str:
    """When a process began, as the kernel counts (no clock that may be set); "" where none runs."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name before may hold spaces and brackets. State is the first field, the start the 20th.
            state, *fields = file.read().rpartition(b")")[2].split()
            return "" if state in (b"Z", b"X") else fields[18].decode()
    except FileNotFoundError:
        if os.path.exists("/proc/self/stat"):
            return ""
    except ProcessLookupError:
        return ""
    try:
        return f"{psutil.Process(pid).create_time():.2f}"
    except psutil.Error:
        return ""


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""


_PR_SET_PDEATHSIG = 1


def start(program: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a program of Python's that ends with this process; `options` are those of `Popen`."""
    guard = [sys.executable, "-m", "flows.server.processes", str(os.getpid())]
    return subprocess.Popen([*guard, *program], stdin=subprocess.DEVNULL, **options)


def stop(process: subprocess.Popen[bytes], within_s: float) -> None:
    """End a process by SIGTERM, or if it has not ended in time by SIGKILL."""
    process.terminate()
    try:
        process.wait(timeout=within_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main(arguments: list[str]) -> None:
    """Become `arguments[1:]`, tied to the life of the process `arguments[0]`."""
    parent, program = int(arguments[0]), arguments[1:]
    # A terminal's Ctrl-C goes to every process of the group; the parent decides when we end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before we could ask
        sys.exit(1)
    os.execvp(program[0], program)


if __name__ == "__main__":
    main(sys.argv[1:])
