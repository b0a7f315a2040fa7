"""A function run in a process of its own: what it imports stays there, and so does its crash."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from typing import Any

from pipeline.errors import ConfigError, PixelsError


def run_apart(program: str, order: dict[str, Any]) -> None:
    """Call `module:function` with `order`, plain JSON values, in a new process, and wait for it.

    Raises `ConfigError` with the message of the error that ends it.
    """
    code = f"import sys; from {__name__} import _called; _called(sys.argv[1], sys.argv[2])"
    # The path lets a source tree find itself.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ended = subprocess.run(
        [sys.executable, "-c", code, program, json.dumps(order)],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if ended.returncode:
        lines = [line.strip() for line in ended.stderr.splitlines() if line.strip()]
        raise ConfigError((lines or [f"exit status {ended.returncode}"])[-1])


def _called(program: str, order: str) -> None:
    module, _, function = program.partition(":")
    try:
        getattr(importlib.import_module(module), function)(json.loads(order))
    except PixelsError as error:
        sys.exit(" ".join(str(error).split()))
