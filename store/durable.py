"""Local disks only: syncing bytes that must survive a power cut, removing temporary files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path


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


def sweep_partials(root: Path) -> int:
    """Remove temporary files that a killed writer left in the store; returns how many.

    Zarr writes a chunk as `NAME.<hex>.partial` and renames it. Only for the holder of the lease:
    no other process is writing then.
    """
    swept = 0
    for folder in (root, *(p for p in root.iterdir() if p.is_dir()), root / "status" / ".lease"):
        if not folder.is_dir():
            continue
        with os.scandir(folder) as entries:
            stale = [e.path for e in entries if e.name.endswith(".partial") and e.is_file()]
        for path in stale:
            with suppress(FileNotFoundError):
                os.unlink(path)
                swept += 1
    return swept


def _sync(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
