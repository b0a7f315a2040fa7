"""Remote clips for the decoders: streamed to a bounded scratch folder, decoded, removed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
import threading
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Self

from pipeline.errors import UnreadableClip
from pipeline.features.catalog import remote
from pipeline.features.decoding.values import ClipFrames, Decoders
from pipeline.features.files import sha256_if_readable

SCRATCH_VARIABLE = "PIXELS_ONCE_SCRATCH"
_PREFIX = "pixels-once-clips-"
_SCRATCH_BYTES = 2 << 30
_UNKNOWN_BYTES = 64 << 20
_FETCHES = 8


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
        self._folder: Path | None = None
        self._lock: IO[bytes] | None = None
        self._threads = ThreadPoolExecutor(_FETCHES, thread_name_prefix="fetch")

    def submit(self, path: str, size_bytes: int = -1) -> Future[ClipFrames]:
        """A future of the clip's frames; `UnreadableClip` `missing` or `unreachable` as well."""
        if not remote.is_remote(path):
            return self._decoders.submit(remote.local_path(path), size_bytes)
        future: Future[ClipFrames] = Future()
        self._threads.submit(self._fetch, path, size_bytes, future)
        return future

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

    def _fetch(self, url: str, size_bytes: int, future: Future[ClipFrames]) -> None:
        wanted = min(size_bytes if size_bytes >= 0 else _UNKNOWN_BYTES, self._limit)
        with self._room:
            self._room.wait_for(lambda: self._closed or self._held + wanted <= self._limit)
            if self._closed or future.cancelled():
                future.cancel()
                return
            try:
                name = self._new_file(url)
            except OSError as error:  # no room, or no right to write there
                future.set_exception(error)
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
            inner = self._decoders.submit(name, os.path.getsize(name))
        except BaseException as error:
            over()
            if future.set_running_or_notify_cancel():
                future.set_exception(error)
            return

        def decoded(inner: Future[ClipFrames]) -> None:
            error = None if inner.cancelled() else inner.exception()
            if isinstance(error, UnreadableClip) and not error.sha256:  # its decoder died of it
                error.sha256 = sha256_if_readable(name)
            over()
            _hand_on(inner, future)

        inner.add_done_callback(decoded)

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
