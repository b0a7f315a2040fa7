"""Memory in which a loader's worker hands batches to the process that trains, used again and again.

PyTorch allocates shared memory for every tensor that a worker sends, and making its pages takes
longer than reading the rows: two workers gave a fifth of the rate of none. Here a worker has a few
blocks (memfd) that the other process maps once. A block is used again when the arrays in it are gone
on both sides; one that a fork has seen is never used again. Where none is free, or the batch is no
longer what was put into its block, PyTorch's own way is taken.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
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
_HEAD = mmap.PAGESIZE  # its first byte is the block's state, for the other process
_FREE, _LENT, _TAKEN, _LOST = range(4)
_ALIGNED = 64
_GET_DUMPABLE = 3  # of prctl(2)


class Blocks:
    """The blocks of one worker."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._blocks: list[_Block] = []
        self._usable = hasattr(os, "memfd_create") and _may_be_opened()

    def batch(self, values: Mapping[str, NDArray[Any]]) -> dict[str, torch.Tensor]:
        """The arrays as tensors, copied into a block if one is free."""
        size = _HEAD + sum(-(-array.nbytes // _ALIGNED) * _ALIGNED for array in values.values())
        if self._usable and os.getpid() == self._process:
            with self._lock:
                block = self._free(size)
                if block is not None:
                    return block.batch(values)
        return {name: torch.from_numpy(array) for name, array in values.items()}

    def _free(self, size: int) -> _Block | None:
        self._blocks = [block for block in self._blocks if not block.is_lost]
        free = next((block for block in self._blocks if block.is_free), None)
        if free is not None and free.size >= size:
            return free
        if free is not None:  # too small: of an epoch's first batch, if that was its last
            self._blocks.remove(free)
        if len(self._blocks) >= MOST_BLOCKS:
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
        # Now: no page that is missing later ends the worker.
        os.posix_fallocate(self._file, 0, size)
        self._memory = mmap.mmap(self._file, size)
        self.place = (os.getpid(), self._file, os.fstat(self._file).st_ino)
        self._use: weakref.ref[_Use] | None = None

    @property
    def is_free(self) -> bool:
        """Whether no array of it is left, here or in the process that trains."""
        return (self._use is None or self._use() is None) and self._memory[0] == _FREE

    @property
    def is_lost(self) -> bool:
        """Whether a fork of either process may have arrays of it for ever."""
        return self._memory[0] == _LOST

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
        return SharedBatch(tensors, use, (*self.place, self.size, tuple(layout)))


class SharedBatch(dict[str, torch.Tensor]):
    """A batch whose tensors lie in a block; it is sent to another process as the block's place, once.

    Copied deeply or saved, it is a dictionary of its own tensors.
    """

    def __init__(
        self, tensors: Mapping[str, torch.Tensor], use: _Use, place: tuple[Any, ...]
    ) -> None:
        super().__init__(tensors)
        self._use, self._place = use, place

    def __copy__(self) -> Self:  # a loader copies before it sends
        return type(self)(self, self._use, self._place)

    def __reduce_ex__(self, protocol: Any) -> Any:  # of a class that `torch.load` takes
        return OrderedDict, (), None, None, iter(self.items())

    def sent(self) -> Any:
        """What `ForkingPickler` writes, which is for a living process alone."""
        if self._use.holds(self) and self._use.lend():
            return received, self._place
        return dict, (dict(self),)


ForkingPickler.register(SharedBatch, SharedBatch.sent)


def received(process: int, file: int, inode: int, size: int, layout: Layout) -> Any:
    """The tensors of a batch that a worker has put into its block.

    Raises `RuntimeError` where the worker has ended, or the batch came before.
    """
    memory = _mapped(process, file, inode, size)
    if memory[0] not in (_LENT, _LOST):
        raise RuntimeError("a batch that a worker has sent comes once")
    if memory[0] == _LENT:
        memory[0] = _TAKEN
    return _Use(memory, is_borrowed=True).tensors(layout)


_maps: dict[tuple[int, int, int], mmap.mmap] = {}
_mapping = threading.Lock()


def _mapped(process: int, file: int, inode: int, size: int) -> mmap.mmap:
    key = (process, file, inode)
    with _mapping:
        if key not in _maps:
            for other in [other for other in _maps if not _is_there(*other)]:
                del _maps[other]  # what is in use keeps its memory
            _maps[key] = _map(*key, size)
        return _maps[key]


def _map(process: int, file: int, inode: int, size: int) -> mmap.mmap:
    ended = f"the worker {process} that has read this batch has ended"
    try:
        descriptor = os.open(_path(process, file), os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        raise RuntimeError(ended) from None
    try:
        if os.fstat(descriptor).st_ino != inode:
            raise RuntimeError(ended)
        return mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)


def _is_there(process: int, file: int, inode: int) -> bool:
    """Whether the worker still has this block."""
    try:
        return os.stat(_path(process, file)).st_ino == inode
    except OSError:
        return False


class _Use:
    """The use of a block's memory: arrays and tensors of it keep this alive, as their base.

    is_borrowed: the block is another process's, for which it is free once this ends.
    """

    def __init__(self, memory: mmap.mmap, *, is_borrowed: bool = False) -> None:
        self._memory, self._is_borrowed = memory, is_borrowed
        self._process = os.getpid()
        self._is_lent = is_borrowed
        self._told: dict[str, tuple[Any, ...]] = {}
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        self.__array_interface__ = {
            "data": (address, False),
            "shape": (len(memory),),
            "typestr": "|u1",
            "version": 3,
        }
        _uses.add(self)

    def __del__(self) -> None:
        # A fork has a copy of this, whose end says nothing.
        if self._is_borrowed and self._process == os.getpid() and self._memory[0] == _TAKEN:
            self._memory[0] = _FREE

    def tensors(self, layout: Layout) -> dict[str, torch.Tensor]:
        """The arrays of this layout as tensors."""
        whole = np.asarray(self)
        found = {}
        for name, dtype, shape, start in layout:
            count = int(np.prod(shape)) * np.dtype(dtype).itemsize
            array = whole[start : start + count].view(dtype).reshape(shape)
            found[name] = torch.from_numpy(array)
        self._told = {name: _told(tensor) for name, tensor in found.items()}
        return found

    def holds(self, tensors: Mapping[str, Any]) -> bool:
        """Whether these are the tensors that were made of it, apart from their numbers."""
        return {name: _told(tensor) for name, tensor in tensors.items()} == self._told

    def lend(self) -> bool:
        """Let the other process have the block; whether it may, as it is only once."""
        if self._is_lent or self._process != os.getpid() or self._memory[0] == _LOST:
            return False
        self._is_lent = True
        self._memory[0] = _LENT
        return True

    def lose(self) -> None:
        """Let the block never be used again: a fork will see its arrays for as long as it likes."""
        self._memory[0] = _LOST


_uses: weakref.WeakSet[_Use] = weakref.WeakSet()


def _lose_all() -> None:
    for use in list(_uses):
        use.lose()


os.register_at_fork(before=_lose_all)


def _told(tensor: Any) -> tuple[Any, ...]:
    """All that a block's place says of a tensor."""
    if type(tensor) is not torch.Tensor or tensor.layout is not torch.strided:
        return ()
    place = (tensor.device.type, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
    return (*place, tensor.requires_grad, tensor.is_conj(), tensor.is_neg())


def _path(process: int, file: int) -> str:
    return f"/proc/{process}/fd/{file}"


def _may_be_opened() -> bool:
    """Whether other processes of this user may open this one's files (see proc(5))."""
    try:
        return int(ctypes.CDLL(None).prctl(_GET_DUMPABLE, 0, 0, 0, 0)) == 1
    except (AttributeError, OSError):
        return False
