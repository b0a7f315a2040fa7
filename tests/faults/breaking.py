"""What the fault tests break and how they look at what is left. Linux only, like the decoders."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import xarray
import zarr

import store
from tests.flows import running
from tests.waiting import wait_until

STEPS, BATCH, CLIPS = 4, 4, 40
BATCHES = CLIPS // BATCH
FRAMES = ("--backbone", "frames", "--frames", str(STEPS), "--batch", str(BATCH), "--json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """When something dies: `chunks` batches are on the disk, and `delay_s` later."""

    chunks: int
    delay_s: float

    @classmethod
    def drawn(cls, seed: int) -> Moment:
        """A random moment of a run, the same for the same seed."""
        drawn = random.Random(seed)
        return cls(chunks=drawn.randrange(BATCHES - 3), delay_s=drawn.uniform(0, 0.15))


def features(videos: Path, url: Path, *more: str, **options: Any) -> subprocess.Popen[str]:
    """Begin a run over `videos` into `url`."""
    words = ("features", "--videos", str(videos), "--store", str(url), *FRAMES, *more)
    return running.start(*words, cwd=url.parent, **options)


def finished(videos: Path, url: Path, *more: str, **options: Any) -> running.Finished:
    """A run over `videos` into `url`, to its end."""
    return running.finish(features(videos, url, *more, **options))


def finished_here(videos: Path, url: Path, *more: str) -> running.Finished:
    """A run over `videos` into `url` in this process, which saves the start of another."""
    words = ("features", "--videos", str(videos), "--store", str(url), *FRAMES, *more)
    return running.run_here(*words)


def wait_for(
    moment: Moment, url: Path, process: subprocess.Popen[str], *, already: int = 0
) -> None:
    """Return at the moment. `already`: chunks that were there before the run began."""
    lease = url / "status" / ".lease"
    wait_until(lambda: lease.is_dir() and any(lease.iterdir()), process)
    wait_until(lambda: chunks(url) >= min(already + moment.chunks, BATCHES), process)
    time.sleep(moment.delay_s)


def chunks(url: Path) -> int:
    """Batches of features on the disk."""
    return len(list((url / "features").glob("c.*.0"))) if url.is_dir() else 0


def family(pid: int) -> list[psutil.Process]:
    """A process and all its descendants."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def command_line(process: psutil.Process) -> str:
    """The words a process was started with; nothing for one that has ended, waited for or not."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def workers(pid: int) -> list[psutil.Process]:
    """The Dask worker processes of a run."""
    children = psutil.Process(pid).children(recursive=True)
    return [p for p in children if "multiprocessing.spawn" in command_line(p)]


def assert_gone(processes: Iterable[psutil.Process]) -> None:
    """All of these end by themselves, now that what they lived for has ended."""
    _, alive = psutil.wait_procs(list(processes), timeout=120)
    assert not [words for words in map(command_line, alive) if words]


def shared_memory() -> set[str]:
    """What lies in /dev/shm."""
    return set(os.listdir("/dev/shm"))


def left_shared_memory(before: set[str]) -> set[str]:
    """What is new in /dev/shm and used by no living process (other programs may use theirs)."""
    new = {}
    for name in shared_memory() - before:
        with contextlib.suppress(FileNotFoundError):
            new[name] = os.stat(f"/dev/shm/{name}").st_ino
    used = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):  # it ended while we looked
            # By inode: a semaphore is mapped under the name that it had before its own.
            used |= {int(line.split()[4]) for line in maps.open() if "/dev/shm/" in line}
    return {name for name, inode in new.items() if inode not in used} & shared_memory()


def assert_no_shared_memory(before: set[str]) -> None:
    """Nothing new stays in /dev/shm without a process that uses it.

    A run that a test beside this one has just killed leaves its own until its tracker has seen it.
    """
    deadline = time.monotonic() + 30
    while left := left_shared_memory(before):
        assert time.monotonic() < deadline, left
        time.sleep(0.5)


def arrays(url: Path) -> dict[str, np.ndarray]:
    """Every array of a store."""
    group = zarr.open_group(str(url), mode="r")
    return {name: group[name][:] for name in sorted(group.array_keys())}


def assert_equal(url: Path, whole: dict[str, np.ndarray]) -> None:
    """The store holds, array for array, what one made without interruption holds, and is sound."""
    found = arrays(url)
    assert found.keys() == whole.keys()
    for name, values in whole.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)
    assert store.verify(str(url)).ok
    dataset = xarray.open_zarr(url, consolidated=False).load()
    assert dict(dataset.sizes)["video"] == len(whole["status"])
    assert_tidy(url)


def assert_tidy(url: Path) -> None:
    """Nothing temporary is left in or beside the store, and nobody holds it."""
    assert not [p.name for p in url.parent.glob(".*.partial")]
    assert not [p.name for p in url.rglob("*.partial")]
    assert store.holder(str(url)) is None
