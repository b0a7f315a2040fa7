"""Local disks only: bytes that survive a power cut, files that get their name when they are whole."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


def sync_files(paths: Iterable[Path]) -> None:
    """Flush these files and then their folders to the disk.

    A file may be missing (Zarr stores no chunk of fill values alone); its folder is synced.
    """
    files = list(paths)
    folders = sorted({path.parent for path in files})
    if len(files) > 2:
        # The file system merges concurrent syncs into one journal commit.
        with ThreadPoolExecutor(min(8, len(files))) as threads:
            list(threads.map(_sync, files))
            list(threads.map(_sync, folders))
    else:
        for path in (*files, *folders):
            _sync(path)


def write_durably(path: Path, data: Any, *, size: int) -> None:
    """Write a file of this buffer and zeros up to `size` bytes, on the disk before it has its name."""
    making = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with open(making, "xb", buffering=0) as file:
            left = memoryview(data).cast("B")
            while left:
                left = left[file.write(left) :]
            file.truncate(size)
            os.fsync(file.fileno())
        making.replace(path)
    except BaseException:
        making.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def sweep_partials(root: Path) -> None:
    """Remove temporary files that a killed writer left in the store.

    Zarr writes a chunk as `NAME.<hex>.partial` and renames it, and so do we. Only for the holder of the
    lease: no other process is writing then.
    """
    for folder in (root, *(p for p in root.iterdir() if p.is_dir()), root / "status" / ".lease"):
        for path in folder.glob("*.partial"):
            if path.is_file():
                path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    with suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def partial(target: Path, ending: str = ".partial", *, folder: bool = False) -> Iterator[Path]:
    """An empty file or folder beside `target`, to be renamed; removed at the end if it is not.

    Who makes it holds a lock on it, which ends with the process; one without a lock is what a killed
    process left, and is removed by the next that makes one for the same target.
    """
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
