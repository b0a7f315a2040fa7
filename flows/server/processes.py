"""Which process a flow run belongs to, and whether that process still exists."""

from __future__ import annotations

import functools
import os
import platform
import socket
from collections.abc import Mapping
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
