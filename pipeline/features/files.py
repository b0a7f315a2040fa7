"""File access with time limits; only regular files are opened.

A network mount whose server is gone blocks `stat`, `open` and `read` inside the kernel, and opening
a FIFO waits for a writer that may never come. So every access runs in another thread, which is
abandoned when it blocks; until it returns, other accesses to the same folder fail at once.
"""

from __future__ import annotations

import errno
import hashlib
import os
import queue
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

LIMIT_S = 20.0
"""Seconds without an answer after which a file counts as unreachable."""

_CHUNK_BYTES = 4 << 20
_T = TypeVar("_T")
State = os.stat_result | OSError | ValueError

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a block device",
    stat.S_IFCHR: "a character device",
}

_blocked: dict[str, threading.Thread] = {}


class NoAnswer(OSError):
    """The file system did not answer in time."""

    def __init__(self, path: str) -> None:
        super().__init__(errno.ETIMEDOUT, f"the file system gave no answer for {LIMIT_S:g} s", path)


class NotRegular(OSError):
    """The path is a folder, FIFO, socket or device, where a regular file is expected."""

    def __init__(self, path: str, mode: int) -> None:
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        super().__init__(errno.EINVAL, f"it is {kind}, no regular file", path)


def answered(path: str, touch: Callable[[], _T]) -> _T:
    """What `touch()` returns or raises; raises `NoAnswer` if that takes over `LIMIT_S` seconds.

    path: the file that is accessed; its folder counts as unreachable until the blocked call returns.
    """
    folder = os.path.dirname(path)
    if _is_blocked(folder):
        raise NoAnswer(path)
    try:
        thread = _idle.pop()
    except IndexError:
        thread = _Toucher()
    thread.asked.put(touch)
    try:
        value, error = thread.answers.get(timeout=LIMIT_S)
    except BaseException as ended:  # Ctrl-C too: the thread's answer would be taken for the next
        thread.asked.put(None)
        if not isinstance(ended, queue.Empty):
            raise
        _blocked[folder] = thread
        raise NoAnswer(path) from None
    _idle.append(thread)
    if error is not None:
        raise error
    answer: _T = value
    return answer


class _Toucher(threading.Thread):
    """A thread that makes one call after the other, until it is asked for None.

    It is used again: to start one takes as long as to read a small file.
    """

    def __init__(self) -> None:
        super().__init__(name="touching files", daemon=True)
        self.asked: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self.answers: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        self.start()

    def run(self) -> None:
        while (touch := self.asked.get()) is not None:
            try:
                self.answers.put((touch(), None))
            except BaseException as error:  # raised again in the caller's thread
                self.answers.put((None, error))
            del touch


_idle: list[_Toucher] = []
os.register_at_fork(after_in_child=_idle.clear)


def stat_all(paths: Sequence[str]) -> list[State]:
    """`os.stat` of every path, or the error that it raised, `NoAnswer` included; in their order.

    One thread walks along the paths, since a thread for each would cost more than the calls.
    """
    states: list[State] = []
    while len(states) < len(paths):
        rest, seen, given_up = paths[len(states) :], -1, threading.Event()
        walked: list[State] = []
        walk = (rest, walked, given_up)
        thread = threading.Thread(target=_stat_each, args=walk, name="stat", daemon=True)
        thread.start()
        while thread.is_alive() and len(walked) > seen:
            seen = len(walked)
            thread.join(LIMIT_S)
        given_up.set()
        states += walked[: len(rest)]
        if len(states) < len(paths):
            path = paths[len(states)]
            _blocked[os.path.dirname(path)] = thread
            states.append(NoAnswer(path))
    return states


def read_start(path: str, size: int = 1) -> bytes:
    """The first `size` bytes of a regular file, fewer where it is shorter.

    Raises `NoAnswer`, `NotRegular`, or what `open` raises.
    """

    def touch() -> bytes:
        with os.fdopen(_open_regular(path), "rb") as file:
            return file.read(size)

    return answered(path, touch)


def sha256(path: str, *, on_read: Callable[[], None] = lambda: None) -> str:
    """The SHA-256 of a regular file's bytes, as 64 hexadecimal digits.

    on_read: called after every 4 MiB.
    Raises `NoAnswer` where one read takes over `LIMIT_S` seconds, `NotRegular`, or what `open` raises.
    """
    digest = hashlib.sha256()
    file = os.fdopen(answered(path, lambda: _open_regular(path)), "rb", 0)
    try:
        while chunk := answered(path, lambda: file.read(_CHUNK_BYTES)):
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


@contextmanager
def whole(target: Path) -> Iterator[Path]:
    """A path beside `target` for a file or folder that is to get its name when it is whole.

    What was made there is renamed at the end, or removed on an error. Raises `OSError`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f".{target.name}.", dir=target.parent, ignore_cleanup_errors=True
    ) as aside:
        making = Path(aside) / target.name
        yield making
        os.replace(making, target)


def is_reachable(path: str) -> bool:
    """Whether a regular file is there and may be read."""
    try:
        read_start(path)
    except (OSError, ValueError):
        return False
    return True


def _stat_each(paths: Sequence[str], states: list[State], given_up: threading.Event) -> None:
    """Append each path's state to `states`, until another thread goes on with the rest."""
    for path in paths:
        state: State = NoAnswer(path)
        if not _is_blocked(os.path.dirname(path)):
            try:
                state = os.stat(path)
            except (OSError, ValueError) as error:  # ValueError: a NUL in the name
                state = error
        if given_up.is_set():
            return
        states.append(state)


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
    if thread is not None and not thread.is_alive():
        _blocked.pop(folder, None)
        thread = None
    return thread is not None
