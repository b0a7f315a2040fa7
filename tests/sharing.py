"""What the processes of a parallel test run share, and which cases of a table every run takes."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

THOROUGH = "TESTS_THOROUGH"
"""Environment variable: set where the tests that take long are run too."""


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that the first process to ask makes, while the others wait. Not to be changed."""
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder, done = root / name, root / f"{name}.done"
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


def examples(thorough: int) -> int:
    """How many examples a property test draws: so many with the tests that take long, else a quarter."""
    return thorough if os.environ.get(THOROUGH) else thorough // 4


def others_long(cases: Iterable[Any], *quick: Any) -> list[Any]:
    """Parameters of a test: these cases in every run, the others with the tests that take long."""
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else (case,)),
            marks=() if case in quick else pytest.mark.long,
        )
        for case in cases
    ]
