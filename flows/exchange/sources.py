"""A source of arrays: what `find_source` found, and how each clip's array is opened."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from flows.exchange.arrays import Foreign, open_npy, open_npz, readable
from flows.exchange.entries import (
    ONE_CLIP,
    PICKLES,
    UNSAID,
    Entry,
    array_files,
    entries_in,
    refuse_pickle,
)
from flows.exchange.manifest import MANIFEST, Told, about_export, entries_of_manifest, told_of
from flows.exchange.parquet import ParquetRows
from pipeline.errors import ConfigError, UnreadableClip

State = tuple[int, int]
"""Bytes and nanoseconds: whether a file is as it was."""


@dataclass(slots=True)
class Source:
    """A folder or a file of arrays. `about` is what an export of ours says of itself, else empty.

    states: of the files of many clips, as they were before those were listed.
    """

    root: Path
    entries: list[Entry]
    transpose: bool = False
    about: dict[str, Any] = field(default_factory=dict)
    states: dict[str, State] = field(default_factory=dict)
    _open: dict[str, Any] = field(default_factory=dict)

    def state(self, name: str) -> State:
        """Of a file of one clip, as it is now; of the manifest and a file of many, as it was at first."""
        if _ending(name) in ONE_CLIP:
            return state_of(self.root / name)
        if name not in self.states:
            self.states[name] = state_of(self.root / name)
        return self.states[name]

    def require_same(self, name: str, state: State) -> None:
        """Raise `UnreadableClip` where a file is not the one that was listed: places in it are others."""
        if state != state_of(self.root / name):
            raise UnreadableClip(
                "unreadable", f"{name} was changed during the import: import again"
            )

    def read(self, entry: Entry) -> Foreign:
        """The clip's array, not read yet. Raises `UnreadableClip` with the reason."""
        name = entry.file
        ending = _ending(name)
        if ending not in ONE_CLIP:
            self.state(name)
        if ending in PICKLES:
            raise UnreadableClip("pickled", f"{name} is a pickle")
        with readable():
            if ending in _SHARDS:
                return self._from_shard(entry, ending)
            path = self._regular(name)
            if ending == ".npz":
                return open_npz(path, transpose=self.transpose)
            if ending != ".tar":
                return open_npy(path, transpose=self.transpose)
            if entry.key.startswith(UNSAID):
                raise UnreadableClip("unreadable", f"which of {entry.key[1:]} is not said")
            offset, size = (int(n) for n in entry.key.split(":"))
            return open_npy(path, offset=offset, size=size, transpose=self.transpose)

    def _from_shard(self, entry: Entry, ending: str) -> Foreign:
        if ending == ".parquet":
            rows: ParquetRows = self._cached(entry.file, ParquetRows)
            shape = self.about.get("shape", ())
            return rows.open(int(entry.key), shape, transpose=self.transpose)
        from flows.exchange.hdf5 import Hdf5File

        file: Hdf5File = self._cached(entry.file, Hdf5File)
        return file.open(entry.key, transpose=self.transpose)

    def _regular(self, name: str) -> Path:
        """The path of a file. Raises `UnreadableClip` for what is none: a pipe would be waited for."""
        path = self.root / name
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UnreadableClip("unreadable", f"{name} is no regular file")
        return path

    def told(self, entry: Entry) -> Told:
        """The clip's line in the manifest, nothing without one. Raises `UnreadableClip`."""
        if entry.line < 0:
            return Told()
        file = self._cached(MANIFEST, _opened)
        file.seek(entry.line)
        line = file.readline()
        self.require_same(MANIFEST, self.state(MANIFEST))
        return told_of(json.loads(line))

    def announce(self, entry: Entry) -> None:
        """Have the system read the clip's bytes, if it lies in them alone, while others are used."""
        ending = _ending(entry.file)
        span = (0, _MOST_AHEAD)
        with suppress(OSError, ValueError, OverflowError):  # it is told where the clip is read
            if ending == ".tar":
                offset, _, size = entry.key.partition(":")
                span = (int(offset), min(int(size), _MOST_AHEAD))
            elif ending not in ONE_CLIP:
                return
            descriptor = os.open(f"{self.root}/{entry.file}", os.O_RDONLY | os.O_NONBLOCK)
            try:
                os.posix_fadvise(descriptor, *span, os.POSIX_FADV_WILLNEED)
            finally:
                os.close(descriptor)

    def in_order(self, entry: Entry) -> bool:
        """Whether the clip's file is read by one thread at a time, from its first row to its last."""
        return _ending(entry.file) in _SHARDS

    def close(self) -> None:
        """Close the files that were kept open."""
        for file in self._open.values():
            with suppress(Exception):
                file.close()
        self._open.clear()

    def _cached(self, name: str, opener: Callable[[Path], Any]) -> Any:
        found = self._open.get(name)
        if found is None:
            while len(self._open) > _MOST_OPEN:
                with suppress(Exception):
                    self._open.pop(next(iter(self._open))).close()
            found = self._open[name] = opener(self._regular(name))
        return found


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()


_MOST_OPEN = 16
_MOST_AHEAD = 1 << 24  # bytes of one clip that the system is asked to read ahead
_SHARDS = (".h5", ".hdf5", ".parquet")


def _opened(path: Path) -> IO[bytes]:
    return path.open("rb")


def find_source(path: str, *, transpose: bool = False) -> Source:
    """The clips of a folder, a file of many, or an export. Raises `ConfigError` if there are none."""
    if "://" in path:
        raise ConfigError(
            f"{path} is a URL, and import reads files of this machine: copy them here, or mount it"
        )
    root = Path(path).expanduser().absolute()
    if not root.exists():
        raise ConfigError(f"there is no file or folder {path!r}: check the path")
    if root.is_file():
        states = {root.name: state_of(root)}
        entries = list(entries_in(root, root.name, whole=True))
        return _not_empty(Source(root.parent, entries, transpose, states=states), path)
    if (root / MANIFEST).is_file():
        states = {MANIFEST: state_of(root / MANIFEST)}
        about = about_export(root)
        flag = bool(about.get("transpose", transpose))
        entries = list(entries_of_manifest(root))
        return _not_empty(Source(root, entries, flag, about, states), path)
    states, entries = {}, []
    for name in array_files(root):
        if _ending(name) not in ONE_CLIP:
            states[name] = state_of(root / name)
        entries += entries_in(root / name, name)
    if not entries or all(Path(e.file).suffix.lower() in PICKLES for e in entries):
        if entries:
            refuse_pickle(entries[0].file)
        raise ConfigError(
            f"{path} holds no .npy, .npz, .h5, .parquet or .tar file: name the folder that does"
        )
    return Source(root, entries, transpose, states=states)


def state_of(path: Path) -> State:
    """Size and time of a file, (−1, 0) where it cannot be asked."""
    try:
        found = path.stat()
    except (OSError, ValueError):  # a path with a NUL in it
        return -1, 0
    return found.st_size, found.st_mtime_ns


def _not_empty(source: Source, path: str) -> Source:
    if not source.entries:
        raise ConfigError(f"{path} holds no clip: look at what wrote it")
    return source
