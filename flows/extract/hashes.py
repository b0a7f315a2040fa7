"""The hashes of clips' files in one run: each file is hashed once, whatever parts of it are made."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Self

from pipeline.features.catalog.remote import is_remote, local_path
from pipeline.features.files import sha256


class FileHashes:
    """SHA-256 by path, of files on this machine; a context manager.

    A worker hashes what it reads, so only these are taken here: of files that the plan compares, and
    of those whose parts lie in several batches. Always before the file is read for its features, so
    that bytes which change in between make the next run look again.
    """

    def __init__(self) -> None:
        self._hashes: dict[str, Future[str]] = {}
        self._paths: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def same_bytes(self, path: str, stored: str) -> bool | None:
        """Whether the file has this hash; None where it cannot be read now.

        False for a remote file: to fetch it costs what is to be saved.
        """
        if is_remote(path):
            return False
        try:
            return self._future(path).result() == stored
        except OSError:  # listed, but not to be read now
            return None

    def begin(self, paths: Iterable[str]) -> None:
        """Begin to hash these files, in their order; those at URLs are left to the workers."""
        for path in paths:
            if not is_remote(path):
                self._future(path)

    def known(self, path: str) -> str:
        """The hash of a file that was asked for before, waiting for it; "" for any other."""
        future = self._hashes.get(path)
        try:
            return future.result() if future is not None else ""
        except (OSError, ValueError):
            return ""  # decoding it gives the reason

    def close(self) -> None:
        """End the thread after the file that it is at."""
        self._paths.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _future(self, path: str) -> Future[str]:
        with self._lock:
            if path not in self._hashes:
                self._hashes[path] = Future()
                self._paths.put(path)
            if self._thread is None:
                # A daemon, which does not hold up the end of a run that was interrupted.
                self._thread = threading.Thread(target=self._run, name="hashes", daemon=True)
                self._thread.start()
            return self._hashes[path]

    def _run(self) -> None:
        while (path := self._paths.get()) is not None:
            future = self._hashes[path]
            try:
                future.set_result(sha256(local_path(path)))
            except Exception as error:  # whoever asks sees it
                future.set_exception(error)
