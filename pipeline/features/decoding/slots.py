"""Shared memory through which decoder processes hand over frames: a fixed number of slots.

One anonymous file holds a progress counter per process, then the slots. It has no name, so
nothing is left behind whichever process dies, and its size bounds how far decoding runs ahead. A slot
has room for the frames of every plan, and those of one plan lie behind each other, slot by slot: full
slots that are neighbours are a batch for a CNN as they lie.
"""

from __future__ import annotations

import heapq
import itertools
import math
import mmap
import os
import tempfile
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_COUNTER_BYTES = 64  # a cache line each, so that processes do not slow each other


def anonymous_file(name: str) -> int:
    """The descriptor of a new empty file without a path; the caller closes it."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class Place(NamedTuple):
    """Where frames lie in memory that those of other clips lie in too. offset: in bytes."""

    memory: Any
    offset: int


class FrameSlots:
    """The slots as the parent sees them: lend, take back, and look at the counters. Thread safe.

    shapes: of the most uint8 frames of one slot, (n, size, size, 3), for each plan. processes: how many
    counters.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]], *, slots: int, processes: int) -> None:
        self.shapes = tuple(shapes)
        self.count = slots
        self._bytes = [math.prod(shape) for shape in shapes]
        parts = [processes * _COUNTER_BYTES, *(slots * each for each in self._bytes)]
        *self._bases, end = itertools.accumulate(map(_pages, parts))
        self.fd = anonymous_file("pixels-once-frames")
        os.ftruncate(self.fd, end)
        self._map = mmap.mmap(self.fd, end)
        # The first that is free: neighbours are lent one after the other, and memory that was never
        # needed stays untouched.
        self._free = list(range(slots))
        self._changed = threading.Condition()
        self._closed = False

    def lend(self) -> int | None:
        """A free slot's number, waiting for one; None once the slots are closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._free or self._closed)
            return None if self._closed else heapq.heappop(self._free)

    def take_back(self, slot: int) -> None:
        """Make a lent slot free again."""
        with self._changed:
            heapq.heappush(self._free, slot)
            self._changed.notify()

    def frames(self, slot: int, shape: tuple[int, ...] = (), *, plan: int = 0) -> NDArray[np.uint8]:
        """A plan's memory in the slot as an array of `shape`; of its most frames if not given."""
        return view(self._map, self.offset(slot, plan), shape or self.shapes[plan])

    def place(self, slot: int, plan: int = 0) -> Place:
        """Where a plan's frames in the slot lie."""
        return Place(self._map, self.offset(slot, plan))

    def offset(self, slot: int, plan: int = 0) -> int:
        """Where a plan's frames in the slot begin in the file, in bytes."""
        return self._bases[plan] + slot * self._bytes[plan]

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
