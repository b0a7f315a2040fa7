"""How often a file is opened, by whichever process: Linux' inotify counts, not the code under test."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterator
from pathlib import Path

_IN_OPEN, _IN_CLOSE = 0x20, 0x18
_EVENT = struct.Struct("iIII")
_LIBC = ctypes.CDLL(None, use_errno=True)


class Opens:
    """`count()`: how often the file was opened since the watch began, or since the last count.

    Equal events in a row are one to inotify, so each has to be closed before the next is opened.
    """

    def __init__(self, path: Path) -> None:
        self._fd = _LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        watched = _LIBC.inotify_add_watch(self._fd, os.fsencode(path), _IN_OPEN | _IN_CLOSE)
        if self._fd < 0 or watched < 0:
            raise OSError(ctypes.get_errno(), "inotify cannot watch", str(path))

    def count(self) -> int:
        seen = 0
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._fd, 1 << 16):
                at = 0
                while at < len(data):
                    _, mask, _, length = _EVENT.unpack_from(data, at)
                    seen += bool(mask & _IN_OPEN)
                    at += _EVENT.size + length
        return seen

    def close(self) -> None:
        os.close(self._fd)


@contextlib.contextmanager
def watched(path: Path) -> Iterator[Opens]:
    opens = Opens(path)
    try:
        yield opens
    finally:
        opens.close()
