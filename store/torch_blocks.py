"""Memory in which a loader's worker hands batches to the process that trains, used again and again.

PyTorch allocates shared memory for every tensor that a worker sends, and making its pages takes
longer than reading the rows: two workers gave a fifth of the rate of none. Here a worker has a few
blocks (memfd) that the other process maps once. A block is used again when the arrays in it are gone
on both sides. Where none is free, PyTorch's own way is taken.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from collections import OrderedDict
from collections.abc import Mapping
from multiprocessing.reduction import ForkingPickler
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

Layout = tuple[tuple[str, str, tuple[int, ...], int], ...]
"""Of each array: its name, dtype, shape, and where it begins in the block."""

MOST_BLOCKS = 5
"""Of a worker: two batches are on their way by default, one is read, one is written."""
_HEAD = mmap.PAGESIZE  # its first byte says whether the block's batch is on its way or in use there
_MOST_MAPPED = 64
_ALIGNED = 64


class Blocks:
    """The blocks of one worker."""

    def __init__(self) -> None:
        self._blocks: list[_Block] = []

    def batch(self, values: Mapping[str, NDArray[Any]]) -> dict[str, torch.Tensor]:
        """The arrays as tensors, copied into a block if one is free."""
        size = _HEAD + sum(-(-array.nbytes // _ALIGNED) * _ALIGNED for array in values.values())
        block = self._free(size)
        if block is None:
            return {name: torch.from_numpy(array) for name, array in values.items()}
        return block.batch(values)

    def _free(self, size: int) -> _Block | None:
        free = next((block for block in self._blocks if block.is_free), None)
        if free is not None and free.size >= size:
            return free
        if free is not None:  # too small: of an epoch's first batch, if that was its last
            self._blocks.remove(free)
        if len(self._blocks) >= MOST_BLOCKS or not hasattr(os, "memfd_create"):
            return None
        try:
            block = _Block(size)
        except OSError:  # no memory, no more files, no /proc: PyTorch will say what it needs
            return None
        self._blocks.append(block)
        return block


class _Block:
    """One block, in the worker."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._file = os.memfd_create("pixels-once-batch", os.MFD_CLOEXEC)
        weakref.finalize(self, os.close, self._file)
        os.posix_fallocate(
            self._file, 0, size
        )  # now: no page that is missing later ends the worker
        self._memory = mmap.mmap(self._file, size)
        self.place = (os.getpid(), self._file, os.stat(_path(os.getpid(), self._file)).st_ino)
        self._use: weakref.ref[_Use] | None = None

    @property
    def is_free(self) -> bool:
        """Whether no array of it is left, here or in the process that trains."""
        return (self._use is None or self._use() is None) and not self._memory[0]

    def batch(self, values: Mapping[str, NDArray[Any]]) -> SharedBatch:
        """The arrays, copied, as tensors in this block."""
        layout, start = [], _HEAD
        for name, array in values.items():
            layout.append((name, array.dtype.str, array.shape, start))
            start += -(-array.nbytes // _ALIGNED) * _ALIGNED
        use = _Use(self._memory)
        self._use = weakref.ref(use)
        tensors = use.tensors(tuple(layout))
        for name, array in values.items():
            tensors[name].numpy()[...] = array
        return SharedBatch(tensors, own=tensors, block=self, layout=tuple(layout))

    def lend(self) -> None:
        """The other process has it from now on."""
        self._memory[0] = 1


class SharedBatch(dict[str, torch.Tensor]):
    """A batch whose tensors lie in a block; it is sent to another process as the block's place, once.

    Copied deeply or saved, it is a dictionary of its own tensors.
    """

    def __init__(
        self,
        values: Mapping[str, torch.Tensor],
        *,
        own: Mapping[str, torch.Tensor],
        block: _Block | None,
        layout: Layout,
    ) -> None:
        super().__init__(values)
        self._own, self._block, self._layout = own, block, layout

    def __copy__(self) -> Self:  # a loader copies before it sends
        return type(self)(self, own=self._own, block=self._block, layout=self._layout)

    def __reduce_ex__(self, protocol: Any) -> Any:  # of a class that `torch.load` takes
        return OrderedDict, (), None, None, iter(self.items())

    def sent(self) -> Any:
        """What `ForkingPickler` writes, which is for a living process alone."""
        block, self._block = self._block, None
        own = self._own
        changed = self.keys() != own.keys() or any(self[name] is not own[name] for name in own)
        if block is None or changed:
            return dict, (dict(self),)
        block.lend()
        return received, (*block.place, block.size, self._layout)


ForkingPickler.register(SharedBatch, SharedBatch.sent)


def received(process: int, file: int, inode: int, size: int, layout: Layout) -> Any:
    """The tensors of a batch that a worker has put into its block."""
    use = _Use(_mapped(process, file, inode, size), ends_in=os.getpid())
    return use.tensors(layout)


_maps: OrderedDict[tuple[int, int, int], mmap.mmap] = OrderedDict()


def _mapped(process: int, file: int, inode: int, size: int) -> mmap.mmap:
    key = (process, file, inode)
    if key not in _maps:
        descriptor = os.open(_path(process, file), os.O_RDWR | os.O_CLOEXEC)
        try:
            if os.fstat(descriptor).st_ino != inode:
                raise RuntimeError(f"the worker {process} that has read this batch has ended")
            _maps[key] = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
        while len(_maps) > _MOST_MAPPED:  # those of workers that have ended, as a rule
            _maps.popitem(last=False)
    _maps.move_to_end(key)
    return _maps[key]


class _Use:
    """The use of a block's memory: arrays and tensors of it keep this alive, as their base.

    ends_in: the process in which its end frees the block; a fork of it has a copy, which does not.
    """

    def __init__(self, memory: mmap.mmap, *, ends_in: int = 0) -> None:
        self._memory, self._ends_in = memory, ends_in
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        self.__array_interface__ = {
            "data": (address, False),
            "shape": (len(memory),),
            "typestr": "|u1",
            "version": 3,
        }

    def __del__(self) -> None:
        if self._ends_in == os.getpid():
            self._memory[0] = 0

    def tensors(self, layout: Layout) -> dict[str, torch.Tensor]:
        """The arrays of this layout as tensors."""
        whole = np.asarray(self)
        found = {}
        for name, dtype, shape, start in layout:
            count = int(np.prod(shape)) * np.dtype(dtype).itemsize
            array = whole[start : start + count].view(dtype).reshape(shape)
            found[name] = torch.from_numpy(array)
        return found


def _path(process: int, file: int) -> str:
    return f"/proc/{process}/fd/{file}"
