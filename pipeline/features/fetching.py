"""Remote clips for the decoders: streamed to a bounded scratch folder, decoded, removed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Self

from pipeline.errors import UnreadableClip
from pipeline.features.catalog import remote
from pipeline.features.decoding.values import ClipFrames, Decoders, FileParts, Part
from pipeline.features.files import sha256_if_readable

SCRATCH_VARIABLE = "PIXELS_ONCE_SCRATCH"
_PREFIX = "pixels-once-clips-"
_SCRATCH_BYTES = 2 << 30
_UNKNOWN_BYTES = 64 << 20
_FETCHES = 8


_Asked = tuple[Part | None, tuple[int, ...]]
"""Which part of a file, and by which plans, if not by all."""


@dataclass(slots=True, eq=False)
class _Copy:
    """A remote file that is copied for `uses` clips of it. `waiting`: those that wait for the copy."""

    uses: int
    waiting: list[tuple[Future[ClipFrames], _Asked]] = field(default_factory=list)
    settled: bool = False
    error: BaseException | None = None
    name: str = ""
    over: Callable[[], None] = lambda: None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def used(self, *, all_of_them: bool = False) -> None:
        """One clip, or whatever is left of them, needs the copy no more."""
        with self.lock:
            before, self.uses = self.uses, 0 if all_of_them else self.uses - 1
        if before > 0 >= self.uses:
            self.over()


class FetchingDecoders:
    """Decoders that also take URLs. Local paths go straight to the decoders.

    A remote clip is copied to `folder` (default: a new one under `$PIXELS_ONCE_SCRATCH` or the
    system's temporary folder), decoded there and removed. At most `scratch_bytes` are there at a
    time (a larger clip goes alone), in at most eight copies at once. The folder is there
    only while clips are; a killed process's folder is removed by the next process.
    """

    def __init__(self, decoders: Decoders, *, scratch_bytes: int = _SCRATCH_BYTES) -> None:
        self._decoders = decoders
        self._limit = scratch_bytes
        self._held = 0
        self._here = 0
        self._room = threading.Condition()
        self._closed = False
        self._copies: weakref.WeakKeyDictionary[FileParts, _Copy] = weakref.WeakKeyDictionary()
        self._folder: Path | None = None
        self._lock: IO[bytes] | None = None
        self._threads = ThreadPoolExecutor(_FETCHES, thread_name_prefix="fetch")

    def submit(
        self,
        path: str,
        size_bytes: int = -1,
        part: Part | None = None,
        plans: tuple[int, ...] = (),
    ) -> Future[ClipFrames]:
        """A future of the clip's frames; `UnreadableClip` `missing` or `unreachable` as well.

        A remote file is copied once for all of its parts.
        """
        if not remote.is_remote(path):
            return self._submit(remote.local_path(path), size_bytes, (part, plans))
        future: Future[ClipFrames] = Future()
        with self._room:
            copy = self._copies.get(part.of) if part else None
            if copy is None:
                copy = _Copy(uses=len(part.of.spans) if part else 1)
                if part:
                    self._copies[part.of] = copy
                    # Parts that are never asked for must not hold the copy for ever.
                    weakref.finalize(part.of, self._give_up, copy)
                self._threads.submit(self._fetch, path, size_bytes, copy)
            if not copy.settled:
                copy.waiting.append((future, (part, plans)))
                return future
        self._read(copy, future, (part, plans))
        return future

    def _submit(self, path: str, size_bytes: int, asked: _Asked) -> Future[ClipFrames]:
        part, plans = asked
        more = [part, plans] if plans else [part] if part else []
        return self._decoders.submit(path, size_bytes, *more)

    def close(self) -> None:
        """Cancel what is being fetched and remove the scratch folder."""
        with self._room:
            self._closed = True
            self._room.notify_all()
        self._threads.shutdown(wait=True, cancel_futures=True)
        with self._room:
            self._remove_folder()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _fetch(self, url: str, size_bytes: int, copy: _Copy) -> None:
        wanted = min(size_bytes if size_bytes >= 0 else _UNKNOWN_BYTES, self._limit)
        with self._room:
            self._room.wait_for(lambda: self._closed or self._held + wanted <= self._limit)
            if self._closed or all(future.cancelled() for future, _ in copy.waiting):
                self._settle(copy, None)
                return
            try:
                name = self._new_file(url)
            except OSError as error:  # no room, or no right to write there
                self._settle(copy, error)
                return
            self._held += wanted
            self._here += 1

        def over() -> None:
            Path(name).unlink(missing_ok=True)
            with self._room:
                self._held -= wanted
                self._here -= 1
                if not self._here:  # workers are often killed at the end: leave nothing to find
                    self._remove_folder()
                self._room.notify_all()

        try:
            _copy(url, name)
        except BaseException as error:
            over()
            self._settle(copy, error)
            return
        copy.name, copy.over = name, over
        self._settle(copy, None)

    def _settle(self, copy: _Copy, error: BaseException | None) -> None:
        """The copy is there, or will never be: go on with the clips that wait for it."""
        with self._room:
            copy.settled, copy.error = True, error
            waiting, copy.waiting = copy.waiting, []
        for future, asked in waiting:
            self._read(copy, future, asked)

    def _read(self, copy: _Copy, future: Future[ClipFrames], asked: _Asked) -> None:
        """Have a clip of a copied file decoded; the last one takes the copy away."""
        name = copy.name
        if not name or future.cancelled():
            if copy.error is None:
                future.cancel()
            elif future.set_running_or_notify_cancel():
                future.set_exception(copy.error)
            copy.used()
            return
        try:
            inner = self._submit(name, os.path.getsize(name), asked)
        except BaseException as error:
            copy.used()
            if future.set_running_or_notify_cancel():
                future.set_exception(error)
            return

        def decoded(inner: Future[ClipFrames]) -> None:
            error = None if inner.cancelled() else inner.exception()
            if isinstance(error, UnreadableClip) and not error.sha256:  # its decoder died of it
                error.sha256 = sha256_if_readable(name)
            copy.used()
            _hand_on(inner, future)

        inner.add_done_callback(decoded)

    def _give_up(self, copy: _Copy) -> None:
        # In a thread of ours: a garbage collection may call this at any place.
        with contextlib.suppress(RuntimeError):  # closed: the folder is gone with all copies
            self._threads.submit(copy.used, all_of_them=True)

    def _new_file(self, url: str) -> str:
        if self._folder is None:
            self._folder = self._new_folder()
        stem, ending = os.path.splitext(os.path.basename(remote.without_query(url)))
        handle, name = tempfile.mkstemp(ending, stem[:40] + "-", self._folder)
        os.close(handle)
        return name

    def _remove_folder(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _new_folder(self) -> Path:
        above = Path(os.environ.get(SCRATCH_VARIABLE) or tempfile.gettempdir())
        above.mkdir(parents=True, exist_ok=True)
        for old in above.glob(f"{_PREFIX}*"):
            with contextlib.suppress(OSError), open(old / ".lock", "rb") as lock:
                # A live process holds its lock: only a dead process's folder can be locked here.
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(old, ignore_errors=True)
        while True:
            folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=above))
            self._lock = open(folder / ".lock", "wb")  # noqa: SIM115  # held as long as we live
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            if (folder / ".lock").exists():
                break
            self._lock.close()  # before we had its lock, another process took it for a dead one's
        self._limit = min(self._limit, max(shutil.disk_usage(folder).free // 2, 1))
        return folder


def _copy(url: str, to: str) -> None:
    try:
        fs, path = remote.filesystem(url)
        fs.get_file(path, to)
    except FileNotFoundError as error:
        if not os.path.exists(to):  # our own file is gone, not the clip
            raise OSError(errno.ENOENT, "the scratch folder was removed", to) from None
        reason = "missing" if remote.is_absent(error) else "unreachable"
        raise UnreadableClip(reason, remote.without_secrets(url)) from None
    except Exception as error:  # each service raises its own kinds
        cause = f"{type(error).__name__}: {remote.cause_of(error, url)}"
        detail = f"{remote.without_secrets(url)}: {cause}"
        raise UnreadableClip("unreachable", detail[:400]) from None


def _hand_on(inner: Future[ClipFrames], outer: Future[ClipFrames]) -> None:
    """Copy the outcome of one future to another; frames of a cancelled one are released."""
    wanted = outer.set_running_or_notify_cancel()
    try:
        frames = inner.result()
    except (Exception, CancelledError) as error:
        if wanted:
            outer.set_exception(error)
    else:
        if wanted:
            outer.set_result(frames)
        else:
            frames.release()
