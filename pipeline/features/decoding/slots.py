"""Shared memory through which decoder processes hand over frames: a fixed number of slots.

One anonymous file holds a progress counter per process, then the slots. It has no name, so
nothing is left behind whichever process dies, and its size bounds how far decoding runs ahead.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

_COUNTER_BYTES = 64  # a cache line each, so that processes do not slow each other


def anonymous_file(name: str) -> int:
    """The descriptor of a new empty file without a path; the caller closes it."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class FrameSlots:
    """The slots as the parent sees them: lend, take back, and look at the counters. Thread safe.

    shape: of the most uint8 frames of one slot, (n, size, size, 3). processes: how many counters.
    """

    def __init__(self, shape: tuple[int, ...], *, slots: int, processes: int) -> None:
        self.shape = shape
        self.count = slots
        self._base = _pages(processes * _COUNTER_BYTES)
        self._stride = _pages(math.prod(shape))
        self.fd = anonymous_file("pixels-once-frames")
        os.ftruncate(self.fd, self._base + slots * self._stride)
        self._map = mmap.mmap(self.fd, self._base + slots * self._stride)
        # Taken from the end and put back there: memory that was never lent stays untouched.
        self._free = list(range(slots))[::-1]
        self._changed = threading.Condition()
        self._closed = False

    def lend(self) -> int | None:
        """A free slot's number, waiting for one; None once the slots are closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._free or self._closed)
            return None if self._closed else self._free.pop()

    def take_back(self, slot: int) -> None:
        """Make a lent slot free again."""
        with self._changed:
            self._free.append(slot)
            self._changed.notify()

    def frames(self, slot: int, shape: tuple[int, ...] = (), *, skip: int = 0) -> NDArray[np.uint8]:
        """The slot's memory as an array of `shape`; where it is given, the bytes after `skip` in it."""
        return view(self._map, self.offset(slot) + skip, shape or self.shape)

    def offset(self, slot: int) -> int:
        """Where the slot begins in the file, in bytes."""
        return self._base + slot * self._stride

    def counter(self, process: int) -> int:
        """How far the process has counted."""
        return int(counter(self._map, process)[0])

    def stop(self) -> None:
        """End all waiting in `lend`."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def close(self) -> None:
        """Close the file; memory that is still looked at lives until it no longer is."""
        self.stop()
        os.close(self.fd)


def view(memory: Any, offset: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The part of a memory map at `offset` as an uint8 array."""
    count = math.prod(shape)
    return np.frombuffer(memory, dtype=np.uint8, count=count, offset=offset).reshape(shape)


def counter(memory: Any, process: int) -> NDArray[np.uint64]:
    """The process's progress counter, (1,) uint64."""
    return np.frombuffer(memory, dtype=np.uint64, count=1, offset=process * _COUNTER_BYTES)


def _pages(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
