"""A file whose arrays lie in it as they are, and are read one after the other, as shards are."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows.exchange.arrays import Foreign, readable
from pipeline.errors import UnreadableClip


class RawFile:
    """An open file."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        self.size = os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        self._file.close()

    def head(self, start: int, size: int) -> bytes:
        """Up to `size` bytes from `start` on."""
        return os.pread(self._file.fileno(), size, start)

    def fill(self, start: int, target: memoryview) -> None:
        """Read bytes from `start` on until `target` is full. Raises `UnreadableClip`."""
        with readable():
            self._file.seek(start)
            done = 0
            while done < len(target):
                count = self._file.readinto(target[done:])
                if not count:
                    raise UnreadableClip("unreadable", "the file ends before its array does")
                done += count

    def array(self, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Foreign:
        """The array that begins at `offset`, in C order."""
        step = math.prod(shape[1:]) * dtype.itemsize

        def fill(first: int, stop: int, out: NDArray[Any]) -> None:
            self.fill(offset + first * step, out.reshape(-1).view(np.uint8).data)

        def read(first: int, stop: int) -> NDArray[Any]:
            out = np.empty((stop - first, *shape[1:]), dtype)
            fill(first, stop, out)
            return out

        return Foreign(shape=shape, dtype=dtype, read=read, fill=fill)
