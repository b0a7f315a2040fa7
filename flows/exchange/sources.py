"""A source of arrays: what `find_source` found, and how each clip's array is opened."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows.exchange import arrays
from flows.exchange.arrays import (
    Foreign,
    array_of,
    is_list,
    open_npy,
    open_npz,
    parquet_module,
    readable,
    require_bounded_chunks,
)
from flows.exchange.entries import PICKLES, Entry, array_files, entries_in, refuse_pickle
from flows.exchange.manifest import MANIFEST, Told, about_export, entries_of_manifest, told_of
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
    """The clips of a folder, a file of many, or an export. Raises `ConfigError` if there are none."""
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


_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4, "FIXED_LEN_BYTE_ARRAY": 4}  # 8 for all others


class ParquetRows:
    """The column `embedding`. Rows are asked for in order: going back reads the row group again."""

    def __init__(self, path: Path) -> None:
        self._file = parquet_module().ParquetFile(path)
        groups = self._file.metadata.num_row_groups
        rows = [self._file.metadata.row_group(i).num_rows for i in range(groups)]
        self._starts = np.cumsum([0, *rows])
        self._group = self._first = -1
        self._part: Any = ()
        self._rest: Iterator[Any] = iter(())

    def close(self) -> None:
        self._file.close()

    def read(self, row: int) -> NDArray[Any]:
        """One row's embedding, (steps, width). Raises `UnreadableClip`."""
        value = self._value(row)
        if not value.is_valid:
            raise UnreadableClip("no_frames", "its embedding is null")
        values, shape = value.values, [1]
        if is_list(values.type):
            shape = [len(values), -1]
            values = values.flatten()
        if values.null_count or str(values.type) in ("string", "binary"):
            raise UnreadableClip("wrong_dtype", f"its embedding holds nulls or {values.type}")
        flat: NDArray[Any] = values.to_numpy(zero_copy_only=False)
        return flat.reshape(shape[0], -1) if shape[0] else flat.reshape(0, 1)

    def _value(self, row: int) -> Any:
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        if group != self._group or row < self._first:
            self._begin(group)
        while row >= self._first + len(self._part):
            self._first += len(self._part)
            self._part = next(self._rest).column(0)
        return self._part[row - self._first]

    def _begin(self, group: int) -> None:
        """Read the group from its first row on, as many rows at once as stay below the limit."""
        told = self._file.metadata.row_group(group)
        claimed = sum(
            column.num_values * _WIDTHS.get(column.physical_type, 8)
            for column in map(told.column, range(told.num_columns))
            if column.path_in_schema.split(".")[0] == "embedding"
        )
        row_bytes = max(claimed // told.num_rows, 1)
        if row_bytes > arrays.MOST_BYTES:
            raise UnreadableClip("too_large", f"its row group claims {claimed} bytes")
        at_once = max(1, min(told.num_rows, arrays.MOST_BYTES // 4 // row_bytes))
        self._rest = self._file.iter_batches(
            batch_size=at_once, row_groups=[group], columns=["embedding"]
        )
        self._group, self._first, self._part = group, int(self._starts[group]), ()
