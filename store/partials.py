"""A file or folder that has its name when it is whole; what a killed process left of one is removed.

Who makes it holds a lock on it, which ends with the process, so one without a lock is nobody's.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def partial(target: Path, ending: str = ".partial", *, folder: bool = False) -> Iterator[Path]:
    """An empty file or folder beside `target`, to be renamed; removed at the end if it is not."""
    _sweep(target, ending)
    making, lock = _create(target, ending, folder=folder)
    try:
        yield making
    finally:
        _remove(making)
        os.close(lock)


def _create(target: Path, ending: str, *, folder: bool) -> tuple[Path, int]:
    while True:
        making = target.with_name(f".{target.name}.{uuid.uuid4().hex}{ending}")
        if folder:
            making.mkdir()
        else:
            making.touch(exist_ok=False)
        lock = os.open(making, os.O_RDONLY if folder else os.O_RDWR)
        with suppress(OSError):  # a disk without locks: nothing is swept there either
            fcntl.flock(lock, fcntl.LOCK_EX)
        if making.exists():  # else it was swept before it was locked
            return making, lock
        os.close(lock)


def _sweep(target: Path, ending: str) -> None:
    name = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{32}}{re.escape(ending)}")
    for path in target.parent.iterdir():
        if not name.fullmatch(path.name):
            continue
        with suppress(OSError):
            lock = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(path)
            finally:
                os.close(lock)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
