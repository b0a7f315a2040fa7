"""A source of arrays: what `find_source` found, and how each clip's array is opened.

An export of ours says everything in `manifest.jsonl`; other folders say what their names do.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.exchange.arrays import (
    Foreign,
    array_of,
    open_npy,
    open_npz,
    readable,
    require_bounded_chunks,
)
from flows.exchange.entries import (
    PICKLES,
    Entry,
    array_files,
    entries_in,
    refuse_pickle,
)
from flows.exchange.manifest import MANIFEST, Told, about_export, entries_of_manifest, told_of
from flows.exchange.parquet import ParquetRows
from pipeline.errors import ConfigError, UnreadableClip


@dataclass(slots=True)
class Source:
    """A folder or a file of arrays. `about` is what an export of ours says of itself, else empty."""

    root: Path
    entries: list[Entry]
    transpose: bool = False
    about: dict[str, Any] = field(default_factory=dict)
    _open: dict[str, Any] = field(default_factory=dict)
    _bounded: set[tuple[str, str]] = field(default_factory=set)

    def read(self, entry: Entry) -> Foreign:
        """The clip's array, not read yet. Raises `UnreadableClip` with the reason."""
        path = self.root / entry.file
        ending = path.suffix.lower()
        if ending in PICKLES:
            raise UnreadableClip("pickled", f"{entry.file} is a pickle")
        with readable():
            if ending == ".npz":
                found = open_npz(path, transpose=self.transpose)
            elif ending == ".tar":
                offset, size = (int(n) for n in entry.key.split(":"))
                found = open_npy(path, offset=offset, size=size, transpose=self.transpose)
            elif ending in (".h5", ".hdf5"):
                import h5py

                dataset = self._cached(path, h5py.File)[entry.key]
                found = array_of(dataset, transpose=self.transpose)
                if (entry.file, entry.key) not in self._bounded:
                    require_bounded_chunks(dataset)
                    self._bounded.add((entry.file, entry.key))
            elif ending == ".parquet":
                rows = self._cached(path, ParquetRows)
                found = array_of(rows.read(int(entry.key)), transpose=self.transpose)
            else:
                found = open_npy(path, transpose=self.transpose)
        return found

    def told(self, entry: Entry) -> Told:
        """The clip's line in the manifest, nothing without one."""
        if entry.line < 0:
            return Told()
        file = self._cached(self.root / MANIFEST, lambda path: path.open("rb"))
        file.seek(entry.line)
        return told_of(json.loads(file.readline()))

    def _cached(self, path: Path, opener: Any) -> Any:
        name = str(path)
        if name not in self._open:
            while len(self._open) > 8:
                with suppress(Exception):
                    self._open.pop(next(iter(self._open))).close()
            self._open[name] = opener(path)
        return self._open[name]


def find_source(path: str, *, transpose: bool = False) -> Source:
    """The clips of a folder of arrays, of a file that holds many, or of an export of ours.

    Raises `ConfigError` where there is nothing that can be imported.
    """
    root = Path(path).expanduser().absolute()
    if not root.exists():
        raise ConfigError(f"there is no file or folder {path!r}: look at the path")
    if root.is_file():
        return Source(root.parent, list(entries_in(root, root.name, whole=True)), transpose)
    if (root / MANIFEST).is_file():
        about = about_export(root)
        flag = bool(about.get("transpose", transpose))
        return Source(root, list(entries_of_manifest(root)), flag, about)
    entries = [entry for name in array_files(root) for entry in entries_in(root / name, name)]
    if not entries or all(Path(e.file).suffix.lower() in PICKLES for e in entries):
        if entries:
            refuse_pickle(entries[0].file)
        raise ConfigError(
            f"{path} holds no .npy, .npz, .h5, .parquet or .tar file: name the folder that does"
        )
    return Source(root, entries, transpose)
