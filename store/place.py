"""Where a store is: a local folder, `memory://`, or any URL that fsspec opens.

Zarr moves the chunks; this module moves the few small objects that are not Zarr's (the lease) and
checks whether the location offers exclusive creation.
"""

from __future__ import annotations

import glob
import os
import threading
import uuid
import zipfile
from collections.abc import Iterable, Mapping
from contextlib import nullcontext, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import fsspec
from zarr.abc.store import Store as ZarrStore
from zarr.storage import FsspecStore, LocalStore

from store.durable import sync_files
from store.errors import service_code
from store.packed import Archive, PackedStore, refusal

Url = str | os.PathLike[str]
Options = Mapping[str, Any] | None
"""fsspec's options for the file system of a URL."""

PACKED_ENDING = ".zip"

_memory_lock = threading.Lock()

# S3's codes if the object exists, or if another request for it is in progress.
_REFUSED = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")

# What file systems of fsspec tell of an object's version, each by its own name.
_VERSIONS = (
    *("size", "ETag", "etag", "generation", "LastModified", "last_modified", "mtime", "updated"),
    "created",
)

_DEFAULTS: dict[str, dict[str, Any]] = {
    # Otherwise s3fs requests each object's size before reading it; our chunks fit one request anyway.
    "s3": {"max_concurrency": 1},
}


def is_pattern(url: Url) -> bool:
    """Whether it may name several stores: `shards/*.zarr`. A store's own name may look so, too."""
    return any(letter in os.fspath(url) for letter in "*?[")


def matches(pattern: str, storage_options: Options = None) -> list[str]:
    """The addresses that a pattern names, sorted: local paths, or URLs of what fsspec lists."""
    place = Place(pattern, storage_options)
    if place.local is not None:
        return sorted(glob.glob(place.url))
    return sorted(place.unstripped(name) for name in place.listed())


class Place:
    """One store's address, resolved.

    url: absolute. local: the folder, or the file of a packed store; None elsewhere. packed: one file.
    """

    def __init__(self, url: Url, storage_options: Options = None):
        text = os.fspath(url)
        for scheme in ("file://", "local://"):
            text = text.removeprefix(scheme)
        defaults = _DEFAULTS.get(text.split("://")[0], {})
        self.options = {**defaults, **(storage_options or {})}
        self.local: Path | None = None
        if "://" in text or "::" in text:
            self.url = text.rstrip("/")
            self._fs, self._root = fsspec.core.url_to_fs(self.url, **self.options)
            self.packed = self._root.partition("?")[0].lower().endswith(PACKED_ENDING)
        else:
            self.local = Path(os.path.abspath(os.path.expanduser(text)))
            self.url = str(self.local)
            self.packed = self.local.is_file() and (
                self.local.name.lower().endswith(PACKED_ENDING) or zipfile.is_zipfile(self.local)
            )

    def __repr__(self) -> str:
        return f"Place({self.url})"

    def listed(self) -> list[str]:
        """What this address names as a pattern, by the names that its file system has for them."""
        self._fs.invalidate_cache()
        return [str(name) for name in self._fs.glob(self._root)]

    def unstripped(self, name: str) -> str:
        """The URL of what this address's file system calls so."""
        return str(self._fs.unstrip_protocol(name))

    def zarr(self, *, read_only: bool) -> ZarrStore:
        """The place as a Zarr store."""
        if self.packed:
            if not read_only:
                raise refusal(self.url)
            return PackedStore(self.archive)
        if self.local is not None:
            return LocalStore(self.local, read_only=read_only)
        return FsspecStore.from_url(self.url, storage_options=self.options, read_only=read_only)

    @cached_property
    def archive(self) -> Archive:
        """The members of a packed store. Raises `StoreDamaged` for what is no archive of ours."""
        if self.local is not None:
            return Archive(self.url, local=self.local)
        return Archive(self.url, local=None, fs=self._fs, path=self._root)

    def objects(self) -> dict[str, tuple[Any, ...]]:
        """All objects but those of a run in progress, by name: size, time, and what else the place
        tells that is another when one is written again.
        """
        found: dict[str, tuple[Any, ...]] = {}
        if self.packed:
            found = dict.fromkeys(self.archive.members, ())
        elif self.local is not None:
            for path in self.local.rglob("*"):
                with suppress(FileNotFoundError):
                    if path.is_file():
                        stat = path.stat()
                        key = path.relative_to(self.local).as_posix()
                        found[key] = (stat.st_size, stat.st_mtime_ns, stat.st_ino)
        else:
            self._fs.invalidate_cache()
            for name, told in self._fs.find(self._root, detail=True).items():
                key = name.removeprefix(f"{self._root}/")
                found[key] = tuple(str(told.get(n)) for n in _VERSIONS)
        return {
            name: version
            for name, version in found.items()
            if not name.startswith("status/.lease/") and not name.endswith(".partial")
        }

    def span(self, key: str) -> tuple[Path, int, int] | None:
        """Where the bytes of an object lie on this machine: (file, offset, length); None elsewhere."""
        if self.packed:
            return self.archive.span(key)
        if self.local is None:
            return None
        try:
            return self.local / key, 0, os.stat(self.local / key).st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read(self, key: str) -> bytes | None:
        """The bytes of one object, or None where there is none."""
        try:
            if self.packed:
                return self.archive.read(key)
            if self.local is not None:
                return (self.local / key).read_bytes()
            return bytes(self._fs.cat_file(f"{self._root}/{key}"))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def has(self, key: str) -> bool:
        """Whether the object exists, without any cache."""
        if self.local is not None and not self.packed:
            return (self.local / key).is_file()
        return self.read(key) is not None

    def put(self, key: str, data: bytes) -> None:
        """Write one small object; a reader sees the old bytes or the new, never half."""
        if self.packed:
            raise refusal(self.url)
        if self.local is None:
            self._fs.pipe_file(f"{self._root}/{key}", data)
            return
        self._temporary(key, data).replace(self.local / key)

    def put_new(self, key: str, data: bytes) -> bool:
        """Write one small object only if there is none; False if another process's exists.

        Exclusive on local disks (a hard link), in memory, and on object stores with a conditional
        PUT. `creates_exclusively` tests whether a service honours the condition.

        `data` must be unique to the caller (hold a token): a client that lost the response to its own
        creation tries again and is refused, so after a refusal the object is read, and if it holds
        `data` it is ours. (NFS can do the same to a link.)
        """
        return self._create(key, data) or self.read(key) == data

    def creates_exclusively(self, key: str, data: bytes) -> bool:
        """Whether a second creation of `key` (which exists, with `data`) is refused."""
        return self.local is not None or not self._create(key, data)

    def _create(self, key: str, data: bytes) -> bool:
        """Request exclusive creation; False if the object exists."""
        if self.packed:
            raise refusal(self.url)
        if self.local is None:
            try:
                with _memory_lock if self.url.startswith("memory:") else nullcontext():
                    self._fs.pipe_file(f"{self._root}/{key}", data, mode="create")
            except FileExistsError:
                return False
            except OSError as error:
                text = str(error).lower()
                if service_code(error) in _REFUSED or "precondition" in text or "conflict" in text:
                    return False
                raise
            return True
        (self.local / key).parent.mkdir(exist_ok=True)
        temporary = self._temporary(key, data)
        try:
            os.link(temporary, self.local / key)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def names(self, folder: str) -> list[str]:
        """Names of the objects directly in `folder`; empty where there is no such folder."""
        if self.packed:
            return []  # who writes to it, say
        try:
            if self.local is not None:
                return os.listdir(self.local / folder)
            self._fs.invalidate_cache()
            paths = self._fs.ls(f"{self._root}/{folder}", detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [name.rstrip("/").rsplit("/", 1)[-1] for name in paths]

    def delete(self, key: str) -> None:
        """Remove one object; nothing happens where there is none."""
        with suppress(FileNotFoundError):
            if self.local is not None:
                (self.local / key).unlink()
            else:
                self._fs.rm_file(f"{self._root}/{key}")

    def sync(self, keys: Iterable[str]) -> None:
        """Flush objects to the disk, and their folders; nothing to do for a store that is elsewhere."""
        if self.local is not None:
            sync_files(self.local / key for key in keys)

    def _temporary(self, key: str, data: bytes) -> Path:
        assert self.local is not None
        path = (self.local / key).with_name(f".{uuid.uuid4().hex}.partial")
        try:
            path.write_bytes(data)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return path
