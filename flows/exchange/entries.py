"""Which clips a folder, a file of many arrays, or an export of ours holds: listed, not read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.exchange.arrays import readable, tar_members
from flows.exchange.parquet import is_list, parquet_module
from pipeline.errors import ConfigError, UnreadableClip
from pipeline.features.catalog.table import SPLIT_NAMES

ONE_CLIP = (".npy", ".npz")
PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".joblib")
_CONTAINERS = {".h5": "hdf5", ".hdf5": "hdf5", ".parquet": "parquet", ".tar": "tar"}
UNSAID = "?"
"""How the key of a clip begins that has several arrays, of which none is said to be the one."""
_LARGEST_JSON = 1 << 20
_SAID = ("id", "label", "split", "group")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One clip of a source, or a piece of one: where its array is, and what is said of it.

    file: path below the source's folder · key: data set, row number or offset in it · line: where its
    line begins in the manifest, −1 without one · start, stop: the steps that a row takes of it; −1 is
    the last, whichever that is.
    """

    id: str
    file: str
    key: str = ""
    label: str = ""
    split: str = ""
    group: str = ""
    line: int = -1
    start: int = 0
    stop: int = -1


def refuse_pickle(name: str) -> None:
    """Raise `ConfigError`: pickles are not read."""
    raise ConfigError(
        f"{name} is a pickle, which can run code when it is read: open it where you trust it, and "
        "save its arrays with numpy.save"
    )


def array_files(root: Path) -> Iterator[str]:
    """The files below a folder that may hold arrays, as paths from it, sorted by folder.

    As `features` looks for clips: hidden files are left out, links are followed. Raises `ConfigError`
    for a folder that cannot be listed.
    """
    endings = (*ONE_CLIP, *PICKLES, *_CONTAINERS)
    pending: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
    while pending:
        folder, above = pending.pop()
        try:
            state = os.stat(root / folder)
            here = (state.st_dev, state.st_ino)
            if here in above:  # a link back to a parent
                continue
            with os.scandir(root / folder) as listed:
                entries = sorted((e for e in listed if not e.name.startswith(".")), key=_name)
        except OSError as error:
            raise ConfigError(
                f"the folder {str(root / folder)!r} cannot be listed ({error.strerror}): give the right "
                "to read and enter it, or move it away"
            ) from None
        folders = [entry.name for entry in entries if entry.is_dir()]
        pending += [(f"{folder}{name}/", above | {here}) for name in reversed(folders)]
        for entry in entries:
            if Path(entry.name).suffix.lower() in endings and not entry.is_dir():
                yield f"{folder}{entry.name}"


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name


def entries_in(path: Path, name: str, *, whole: bool = False) -> Iterator[Entry]:
    """The clips of one file; `whole`: it is all that was named. Raises `ConfigError` if unusable."""
    ending = path.suffix.lower()
    kind = _CONTAINERS.get(ending)
    if kind is None:
        if whole and ending in PICKLES:
            refuse_pickle(name)
        if ending not in (*ONE_CLIP, *PICKLES):
            raise ConfigError(f"{path} is no .npy, .npz, .h5, .parquet or .tar file: name one")
        stem = name[: -len(ending)]
        label, split = _of_folders(stem)
        yield Entry(id=stem, file=name, label=label, split=split)
        return
    try:
        if not path.is_file():  # a pipe would be waited for
            raise UnreadableClip("unreadable", "it is no regular file")
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
    from flows.exchange.hdf5 import datasets_in

    for key, attributes in datasets_in(path, _SAID):
        label, split = _of_folders(key)
        said: dict[str, Any] = {"id": key, "label": label, "split": split, **attributes}
        yield Entry(**said, file=name, key=key)


def _in_parquet(path: Path, name: str) -> Iterator[Entry]:
    file = parquet_module().ParquetFile(path)
    known = set(file.schema_arrow.names)
    if not {"id", "embedding"} <= known:
        raise ConfigError(
            f"{path} has the columns {', '.join(sorted(known))}: it needs id, embedding"
        )
    if not is_list(file.schema_arrow.field("embedding").type):
        raise ConfigError(
            f"the column embedding of {path} holds no lists of numbers: store vectors"
        )
    batches = file.iter_batches(columns=sorted(known & set(_SAID)), batch_size=4096)
    for row, values in enumerate(values for batch in batches for values in batch.to_pylist()):
        said: dict[str, Any] = {n: str(v) for n, v in values.items() if v is not None}
        yield Entry(**{"id": f"row-{row}", **said}, file=name, key=str(row))


def _in_tar(path: Path, name: str) -> Iterator[Entry]:
    """WebDataset: members of one name before its first dot are one clip's."""
    members: dict[str, dict[str, tuple[int, int]]] = {}
    for member, offset, size in tar_members(path):
        folder, _, base = member.removeprefix("./").rpartition("/")
        stem, _, ending = base.partition(".")
        members.setdefault(f"{folder}/{stem}".lstrip("/"), {})[ending.lower()] = (offset, size)
    with path.open("rb") as file:
        for key, parts in members.items():
            arrays = {e: at for e, at in parts.items() if e.split(".")[-1] == "npy"}
            if not arrays:
                continue
            array = arrays.get("npy") or next(iter(arrays.values()))
            at = f"{array[0]}:{array[1]}"
            if len(arrays) > 1 and "npy" not in arrays:
                at = UNSAID + ", ".join(arrays)
            said: dict[str, Any] = {}
            for ending, (offset, size) in parts.items():
                if ending in ("json", "cls", "txt") and size <= _LARGEST_JSON:
                    file.seek(offset)
                    text = file.read(size).decode(errors="replace")
                    with suppress(ValueError, TypeError, RecursionError):
                        said |= (
                            dict(json.loads(text)) if ending == "json" else {"label": text.strip()}
                        )
            values: dict[str, Any] = {n: str(said[n]) for n in _SAID if said.get(n)}
            yield Entry(**{"id": key, **values}, file=name, key=at)
