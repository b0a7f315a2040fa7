"""What can be imported: the clips that a folder or a file holds, and each one's array.

An export of ours says everything in `manifest.jsonl`; other folders say what their names do.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from flows.exchange.arrays import Foreign, array_of, open_npy, open_npz, readable, tar_members
from pipeline.errors import ConfigError, UnreadableClip
from pipeline.features.catalog.table import SPLIT_NAMES

MANIFEST, ABOUT = "manifest.jsonl", "export.json"
_FILES = (".npy", ".npz")
_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".joblib")
_CONTAINERS = {".h5": "hdf5", ".hdf5": "hdf5", ".parquet": "parquet", ".tar": "tar"}
_LARGEST_JSON = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One clip of a source: where its array is, and what is said of it.

    file: path below the source's folder · key: data set, row number or offset in it · line: where its
    line begins in the manifest, −1 without one.
    """

    id: str
    file: str
    key: str = ""
    label: str = ""
    split: str = ""
    group: str = ""
    line: int = -1


@dataclass(slots=True)
class Source:
    """A folder or a file of arrays. `about` is what an export of ours says of itself, else empty."""

    root: Path
    entries: list[Entry]
    transpose: bool = False
    about: dict[str, Any] = field(default_factory=dict)
    _open: dict[str, Any] = field(default_factory=dict)

    def read(self, entry: Entry) -> Foreign:
        """The clip's array, not read yet. Raises `UnreadableClip` with the reason."""
        path = self.root / entry.file
        ending = path.suffix.lower()
        if ending in _PICKLES:
            raise UnreadableClip("pickled", f"{entry.file} is a pickle")
        with readable():
            if ending == ".npz":
                found = open_npz(path, transpose=self.transpose)
            elif ending == ".tar":
                offset, size = (int(n) for n in entry.key.split(":"))
                found = open_npy(path, offset=offset, size=size, transpose=self.transpose)
            elif ending in (".h5", ".hdf5"):
                found = array_of(self._hdf5(path)[entry.key], transpose=self.transpose)
            elif ending == ".parquet":
                found = array_of(self._parquet(path, int(entry.key)), transpose=self.transpose)
            else:
                found = open_npy(path, transpose=self.transpose)
        return found

    def told(self, entry: Entry) -> dict[str, Any]:
        """The clip's line in the manifest; empty without one."""
        if entry.line < 0:
            return {}
        file = self._cached(self.root / MANIFEST, lambda path: path.open("rb"))
        file.seek(entry.line)
        return dict(json.loads(file.readline()))

    def _hdf5(self, path: Path) -> Any:
        import h5py

        return self._cached(path, lambda name: h5py.File(name, "r"))

    def _parquet(self, path: Path, row: int) -> Any:
        """One row's embedding, (steps, width): rows are asked for in order, so batches are kept one."""
        file, starts = self._cached(path, _parquet_groups)
        group = int(np.searchsorted(starts, row, side="right")) - 1
        key = f"{path}#rows"
        if self._open.get(key, (-1,))[0] != group:
            self._open[key] = (group, file.read_row_group(group, columns=["embedding"]))
        value = self._open[key][1].column(0)[row - int(starts[group])]
        if not value.is_valid:
            raise UnreadableClip("no_frames", "its embedding is null")
        values, shape = value.values, [1]
        if _is_list(values.type):
            shape = [len(values), -1]
            values = values.flatten()
        if values.null_count or str(values.type) in ("string", "binary"):
            raise UnreadableClip("wrong_dtype", f"its embedding holds nulls or {values.type}")
        flat = values.to_numpy(zero_copy_only=False)
        return flat.reshape(shape[0], -1) if shape[0] else flat.reshape(0, 1)

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
        return Source(root.parent, list(_in_file(root, root.name, whole=True)), transpose)
    if (root / MANIFEST).is_file():
        about = _about(root)
        flag = bool(about.get("transpose", transpose))
        return Source(root, list(_in_manifest(root)), flag, about)
    entries = [entry for name in _walk(root) for entry in _in_file(root / name, name)]
    if not entries or all(Path(e.file).suffix.lower() in _PICKLES for e in entries):
        if entries:
            _refuse_pickle(entries[0].file)
        raise ConfigError(
            f"{path} holds no .npy, .npz, .h5, .parquet or .tar file: name the folder that does"
        )
    return Source(root, entries, transpose)


def _refuse_pickle(name: str) -> None:
    raise ConfigError(
        f"{name} is a pickle, which can run code when it is read: open it where you trust it, and "
        "save its arrays with numpy.save"
    )


def _walk(root: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(files):
            if Path(name).suffix.lower() in (*_FILES, *_PICKLES, *_CONTAINERS):
                yield (Path(folder) / name).relative_to(root).as_posix()


def _in_file(path: Path, name: str, *, whole: bool = False) -> Iterator[Entry]:
    ending = path.suffix.lower()
    kind = _CONTAINERS.get(ending)
    if kind is None:
        if whole and ending in _PICKLES:
            _refuse_pickle(name)
        if ending not in (*_FILES, *_PICKLES):
            raise ConfigError(f"{path} is no .npy, .npz, .h5, .parquet or .tar file: name one")
        stem = name[: -len(ending)]
        label, split = _of_folders(stem)
        yield Entry(id=stem, file=name, label=label, split=split)
        return
    try:
        with readable():
            yield from {"hdf5": _in_hdf5, "parquet": _in_parquet, "tar": _in_tar}[kind](path, name)
    except UnreadableClip as error:
        raise ConfigError(f"{path} cannot be read ({error}): replace it by a sound copy") from None


def _of_folders(stem: str) -> tuple[str, str]:
    """(label, split) by the folders: CLASS/clip, or train|val|test/CLASS/clip."""
    parts = stem.split("/")
    split = SPLIT_NAMES.get(parts[0].lower(), "") if len(parts) > 2 else ""
    return (parts[-2] if len(parts) > 1 else ""), split


def _in_hdf5(path: Path, name: str) -> Iterator[Entry]:
    import h5py

    keys: list[str] = []

    def visit(key: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim:
            # Neither other files' data nor other files' names are followed.
            if item.is_virtual or item.external:
                return
            keys.append(key)

    with h5py.File(path, "r") as file:
        file.visititems(visit)
        for key in sorted(keys):
            attributes = file[key].attrs
            label, split = _of_folders(key)
            said: dict[str, Any] = {
                n: str(attributes[n]) for n in ("id", "label", "split", "group") if n in attributes
            }
            yield Entry(**{"id": key, "label": label, "split": split, **said}, file=name, key=key)


def _parquet_groups(path: Path) -> tuple[Any, Any]:
    file = _pyarrow().ParquetFile(path)
    rows = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
    return file, np.cumsum([0, *rows])[:-1]


def _in_parquet(path: Path, name: str) -> Iterator[Entry]:
    file = _pyarrow().ParquetFile(path)
    known = set(file.schema_arrow.names)
    if not {"id", "embedding"} <= known:
        raise ConfigError(
            f"{path} has the columns {', '.join(sorted(known))}: it needs id, embedding"
        )
    if not _is_list(file.schema_arrow.field("embedding").type):
        raise ConfigError(
            f"the column embedding of {path} holds no lists of numbers: store vectors"
        )
    columns = ["id", *sorted(known & {"label", "split", "group"})]
    row = 0
    for batch in file.iter_batches(columns=columns, batch_size=4096):
        for values in batch.to_pylist():
            said: dict[str, Any] = {n: str(v) for n, v in values.items() if v is not None}
            yield Entry(**{"id": f"row-{row}", **said}, file=name, key=str(row))
            row += 1


def _is_list(kind: Any) -> bool:
    import pyarrow.types as types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise ConfigError(
            "Parquet needs pyarrow, which is not installed: pip install 'pixels-once[parquet]'"
        ) from None
    return parquet


def _in_tar(path: Path, name: str) -> Iterator[Entry]:
    """WebDataset: members of one name before its first dot are one clip's."""
    members: dict[str, dict[str, tuple[int, int]]] = {}
    for member, offset, size in tar_members(path):
        folder, _, base = member.rpartition("/")
        stem, _, ending = base.partition(".")
        members.setdefault(f"{folder}/{stem}".lstrip("/"), {})[ending.lower()] = (offset, size)
    with path.open("rb") as file:
        for key, parts in members.items():
            array = next((at for e, at in parts.items() if e.split(".")[-1] == "npy"), None)
            if array is None:
                continue
            said: dict[str, Any] = {}
            for ending, (offset, size) in parts.items():
                if ending in ("json", "cls", "txt") and size <= _LARGEST_JSON:
                    file.seek(offset)
                    text = file.read(size).decode(errors="replace")
                    with suppress(ValueError):
                        said |= (
                            dict(json.loads(text)) if ending == "json" else {"label": text.strip()}
                        )
            values: dict[str, Any] = {
                n: str(said[n]) for n in ("id", "label", "split", "group") if said.get(n)
            }
            yield Entry(**{"id": key, **values}, file=name, key=f"{array[0]}:{array[1]}")


def _about(root: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((root / ABOUT).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _in_manifest(root: Path) -> Iterator[Entry]:
    """The last line of every id counts; a line that was cut short does not."""
    at: dict[str, Entry] = {}
    known: dict[str, str] = {}
    start = 0
    with (root / MANIFEST).open("rb") as file:
        for number, line in enumerate(file):
            begin, start = start, start + len(line)
            try:
                said = json.loads(line)
                name = str(said["file"])
                entry = Entry(
                    id=str(said["id"]), file=name, key=str(said.get("key", "")), line=begin,
                    **{n: known.setdefault(v, v) for n in ("label", "split", "group")
                       for v in [str(said.get(n, ""))]},
                )  # fmt: skip
            except (ValueError, KeyError, TypeError, AttributeError):
                raise ConfigError(
                    f"line {number + 1} of {root / MANIFEST} cannot be read: export again"
                ) from None
            if name.startswith("/") or ".." in name.split("/"):
                raise ConfigError(
                    f"{root / MANIFEST} names {name!r}, which is outside of the folder: take it out"
                )
            at[entry.id] = entry
    yield from at.values()
