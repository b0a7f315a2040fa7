"""File access with time limits; only regular files are opened.

A network mount whose server is gone blocks `stat`, `open` and `read` inside the kernel, and opening
a FIFO waits for a writer that may never come. So every access runs in a thread of its own, which is
abandoned when it blocks; until it returns, other accesses to the same folder fail at once.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

LIMIT_S = 20.0
"""Seconds without an answer after which a file counts as unreachable."""

_CHUNK_BYTES = 4 << 20
_T = TypeVar("_T")

_blocked: dict[str, threading.Thread] = {}


class NoAnswer(OSError):
    """The file system did not answer in time."""

    def __init__(self, path: str, limit_s: float) -> None:
        super().__init__(errno.ETIMEDOUT, f"the file system gave no answer for {limit_s:g} s", path)


class NotRegular(OSError):
    """The path is a folder, FIFO, socket or device, where a regular file is expected."""

    def __init__(self, path: str, mode: int) -> None:
        super().__init__(errno.EINVAL, f"it is {_kind(mode)}, no regular file", path)


def answered(path: str, touch: Callable[[], _T], *, limit_s: float = LIMIT_S) -> _T:
    """What `touch()` returns or raises; raises `NoAnswer` if that takes over `limit_s` seconds.

    path: the file that is accessed; its folder counts as unreachable until the blocked call returns.
    """
    folder = os.path.dirname(path)
    if _is_blocked(folder):
        raise NoAnswer(path, limit_s)
    results: list[_T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(touch())
        except BaseException as error:  # raised again in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=run, name=f"touch {path}", daemon=True)
    thread.start()
    thread.join(limit_s)
    if errors:
        raise errors[0]
    if not results:
        _blocked[folder] = thread
        raise NoAnswer(path, limit_s)
    return results[0]


def stat_all(
    paths: Sequence[str], *, limit_s: float = LIMIT_S
) -> list[os.stat_result | OSError | ValueError]:
    """`os.stat` of every path, or the error that it raised, `NoAnswer` included; in their order.

    One thread walks along the paths, since a thread for each would cost more than the calls.
    """
    states: list[os.stat_result | OSError | ValueError] = [
        NoAnswer(path, limit_s) for path in paths
    ]
    begin = 0
    while begin < len(paths):
        walk = _Walk(paths, states, begin)
        while walk.thread.is_alive():
            before = walk.at
            walk.thread.join(limit_s)
            if walk.thread.is_alive() and walk.at == before:
                break
        walk.given_up = True
        if walk.at < len(paths):
            _blocked[os.path.dirname(paths[walk.at])] = walk.thread
        begin = walk.at + 1
    return states


def read_start(path: str, size: int = 1, *, limit_s: float = LIMIT_S) -> bytes:
    """The first `size` bytes of a regular file, fewer where it is shorter.

    Raises `NoAnswer`, `NotRegular`, or what `open` raises.
    """

    def touch() -> bytes:
        with os.fdopen(_open_regular(path), "rb") as file:
            return file.read(size)

    return answered(path, touch, limit_s=limit_s)


def sha256(
    path: str, *, limit_s: float = LIMIT_S, on_read: Callable[[], None] = lambda: None
) -> str:
    """The SHA-256 of a regular file's bytes, as 64 hexadecimal digits.

    on_read: called after every 4 MiB.
    Raises `NoAnswer` where one read takes over `limit_s` seconds, `NotRegular`, or what `open` raises.
    """
    digest = hashlib.sha256()
    file = os.fdopen(answered(path, lambda: _open_regular(path), limit_s=limit_s), "rb", 0)
    try:
        while chunk := answered(path, lambda: file.read(_CHUNK_BYTES), limit_s=limit_s):
            digest.update(chunk)
            on_read()
    finally:
        if not _is_blocked(os.path.dirname(path)):  # closing a file in use by a blocked read blocks
            file.close()
    return digest.hexdigest()


def sha256_if_readable(path: str, *, on_read: Callable[[], None] = lambda: None) -> str:
    """As `sha256`, "" where the file cannot be read: decoding it gives the reason."""
    try:
        return sha256(path, on_read=on_read)
    except (OSError, ValueError):
        return ""


def is_reachable(path: str, *, limit_s: float = LIMIT_S) -> bool:
    """Whether a regular file is there and may be read."""
    try:
        read_start(path, limit_s=limit_s)
    except (OSError, ValueError):
        return False
    return True


class _Walk:
    """A thread that fills `states` with the results for `paths` from `begin` on; `at` is its position."""

    def __init__(
        self,
        paths: Sequence[str],
        states: list[os.stat_result | OSError | ValueError],
        begin: int,
    ) -> None:
        self._paths, self._states = paths, states
        self.at = begin
        self.given_up = False
        self.thread = threading.Thread(target=self._run, name="stat", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while self.at < len(self._paths):
            path = self._paths[self.at]
            if not _is_blocked(os.path.dirname(path)):
                try:
                    state: os.stat_result | OSError | ValueError = os.stat(path)
                except (OSError, ValueError) as error:  # ValueError: a NUL in the name
                    state = error
                if self.given_up:
                    return  # another thread has gone on from here
                self._states[self.at] = state
            self.at += 1


def _open_regular(path: str) -> int:
    # O_NONBLOCK: opening a FIFO returns at once, and can be refused.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise NotRegular(path, mode)
    return descriptor


def _is_blocked(folder: str) -> bool:
    thread = _blocked.get(folder)
    if thread is None:
        return False
    if thread.is_alive():
        return True
    _blocked.pop(folder, None)
    return False


def _kind(mode: int) -> str:
    for test, name in (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISBLK, "a block device"),
        (stat.S_ISCHR, "a character device"),
    ):
        if test(mode):
            return name
    return "something else"
