"""Waiting for what other processes do: one loop with a deadline, for all tests."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import Any

import psutil


def wait_until(
    holds: Callable[[], Any],
    process: subprocess.Popen[Any] | None = None,
    *,
    limit_s: float = 200,
    every_s: float = 0.02,
) -> Any:
    """Return what `holds` returns as soon as that is true.

    Fails after `limit_s`, and as soon as `process` has ended before, with what it printed.
    A process that ends while `holds` looks at it counts as "not yet".
    """
    deadline = time.monotonic() + limit_s
    while not (value := _value(holds)):
        if process is not None and process.poll() is not None:
            out, err = process.communicate()
            raise AssertionError(f"ended too early with {process.returncode}: {out}\n{err}")
        assert time.monotonic() < deadline, f"not so within {limit_s:.0f} s"
        time.sleep(every_s)
    return value


def _value(holds: Callable[[], Any]) -> Any:
    try:
        return holds()
    except psutil.Error:
        return False
