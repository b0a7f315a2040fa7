"""Clips listed in a CSV file."""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.features.catalog import remote
from pipeline.features.catalog.table import ABSENT, SPLIT_NAMES, UNKNOWN, make_catalog, ucf_group
from pipeline.features.files import NoAnswer, answered, read_start, stat_all

MANIFEST_ENDINGS = (".csv", ".tsv")

_NAMES = {"path": ("path", "video_name"), "label": ("label", "tag")}
_COLUMNS = {"path", "video_name", "label", "tag", "split", "group", "size_bytes", "mtime_ns"}


def list_manifest(manifest: str) -> pd.DataFrame:
    """The clips of a CSV (or tab-separated `.tsv`) file with a header, in its order.

    Columns: `path` or `video_name`; optional `label` or `tag`, `split`, `group`, `size_bytes` and
    `mtime_ns`; others are ignored. Relative paths start at the manifest's folder; names that are
    not there are looked for in the folder named like the manifest (`train.csv`, `train/`). With
    `size_bytes` and `mtime_ns` given no file is touched. A path may be a URL (its id is the URL without
    what follows `?`). Without a group, UCF names give theirs.
    Raises `ConfigError` for a column or a value that cannot be used, or two rows with one id.
    """
    table = _read(manifest)
    given = _one_of(table, "path", manifest)
    if given is None:
        raise ConfigError(f"{manifest} has no column path or video_name: add one")
    if not given:
        raise ConfigError(f"{manifest} lists no clip: add a row for each")
    remote.refuse_credentials(manifest)
    given = [
        os.path.normpath(p) if not remote.is_remote(p) and ("./" in p or "//" in p) else p
        for p in map(remote.local_path, given)
    ]
    for row, path in enumerate(given):
        if not path:
            raise ConfigError(f"{manifest} has no path in row {row + 2}: fill it in")
        if remote.is_remote(path):
            remote.refuse_credentials(path)
            remote.refuse_protocol(path, f"{manifest}, row {row + 2},")
    folder = os.path.dirname(manifest)
    base = _base_of(folder, manifest, given)
    paths = [p if p.startswith("/") or remote.is_remote(p) else f"{base}/{p}" for p in given]
    ids = [_id_of(g, p, folder, base) for g, p in zip(given, paths, strict=True)]
    doubled = np.flatnonzero(pd.Series(ids, dtype=object).duplicated())
    if len(doubled):
        row = int(doubled[0])
        raise ConfigError(f"{manifest} lists {ids[row]!r} twice (row {row + 2}): keep one")
    # Numbers first: their text is the largest part of a long manifest, and goes with this.
    sizes, times = _sizes(table, paths, manifest)
    empty = [""] * len(ids)
    labels = _one_of(table, "label", manifest) or empty
    groups = zip(table.get("group", empty), ids, strict=True)
    columns: dict[str, Any] = {
        "video_id": ids,
        "path": paths,
        "label": [sys.intern(label.strip()) for label in labels],
        "split": _splits(table["split"], manifest) if "split" in table else empty,
        "group": [sys.intern(group.strip() or ucf_group(name)) for group, name in groups],
        "size_bytes": sizes,
        "mtime_ns": times,
    }
    return make_catalog(columns)


def _read(manifest: str) -> pd.DataFrame:
    """The known columns of the file as text; a row for each that is not blank.

    A row may end in surplus commas; a surplus value means an unquoted comma somewhere before it, so that
    every value behind that comma is in the wrong column.
    """
    tab = manifest.lower().endswith(".tsv")
    rows = csv.reader(
        io.StringIO(_text(manifest), newline=""),
        delimiter="\t" if tab else ",",
        skipinitialspace=True,
        strict=True,
    )
    try:
        names = [name.strip() for name in next(rows, [])]
        at = {name: i for i, name in enumerate(names) if name in _COLUMNS}
        doubled = sorted(name for name in at if names.count(name) > 1)
        if doubled:
            raise ConfigError(f"{manifest} has two columns {doubled[0]}: keep one")
        columns: dict[str, list[str]] = {name: [] for name in at}
        for row in rows:
            if not any(row):
                continue
            if any(value.strip() for value in row[len(names) :]):
                mark = "tab" if tab else "comma"
                raise ConfigError(
                    f"{manifest} has {len(row)} values for {len(names)} columns in line "
                    f"{rows.line_num}: put values that hold a {mark} in double quotes"
                )
            if any("\0" in value for value in row):
                raise ConfigError(
                    f"{manifest} has a NUL character in line {rows.line_num}: save it as UTF-8 text"
                )
            for name, i in at.items():
                columns[name].append(row[i] if i < len(row) else "")
    except csv.Error as error:
        raise ConfigError(
            f"{manifest} cannot be read as a manifest: line {rows.line_num}: {error}"
        ) from None
    return pd.DataFrame(columns, dtype=object)


def _text(manifest: str) -> str:
    try:
        if remote.is_remote(manifest):
            import fsspec

            with fsspec.open(manifest, "rb") as file:
                data = bytes(file.read())
        else:
            data = read_start(manifest, -1)
    except Exception as error:  # each service raises its own kinds
        detail = getattr(error, "strerror", None) or remote.without_secrets(str(error))
        error_class = remote.service_error(error) if remote.is_remote(manifest) else ConfigError
        raise error_class(f"{remote.without_secrets(manifest)} cannot be read: {detail}") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{manifest} cannot be read as a manifest: byte {error.start} is no UTF-8: "
            "save it as UTF-8 text"
        ) from None


def _one_of(table: pd.DataFrame, what: str, manifest: str) -> list[str] | None:
    names = [name for name in _NAMES[what] if name in table]
    if len(names) > 1:
        raise ConfigError(f"{manifest} has both {' and '.join(names)}: keep one")
    return table[names[0]].tolist() if names else None


def _base_of(folder: str, manifest: str, given: Sequence[str]) -> str:
    """The folder that relative paths start at."""
    beside = os.path.splitext(manifest)[0]
    first = next((p for p in given if not p.startswith("/") and not remote.is_remote(p)), None)
    if remote.is_remote(folder) or first is None:
        return folder
    try:
        there = answered(folder, lambda: os.path.lexists(f"{folder}/{first}"))
        return folder if there or not answered(beside, lambda: os.path.isdir(beside)) else beside
    except NoAnswer:
        return folder  # where the clips would be, if it answered


def _id_of(given: str, path: str, folder: str, base: str) -> str:
    """The path relative to the manifest's folder; as given where it lies outside of it."""
    if remote.is_remote(given):
        return remote.without_query(given)
    if given.startswith("../") or (base == folder and not given.startswith("/")):
        return given
    inside = folder.rstrip("/") + "/"
    return path[len(inside) :] if path.startswith(inside) else given


def _splits(column: pd.Series, manifest: str) -> list[str]:
    names = {value: SPLIT_NAMES.get(value.strip().lower(), "") for value in set(column)}
    for value, name in names.items():
        if value.strip() and not name:
            raise ConfigError(f"{manifest} has the split {value!r}: use train, val or test")
    return [names[value] for value in column]


def _sizes(
    table: pd.DataFrame, paths: Sequence[str], manifest: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sizes and times from the manifest, or from the file where the manifest lacks either."""
    sizes = _numbers(table, "size_bytes", manifest)
    times = _numbers(table, "mtime_ns", manifest)
    ask = np.flatnonzero((sizes < 0) | (times < 0)).tolist()
    far = [row for row in ask if remote.is_remote(paths[row])]
    for row, state in zip(far, remote.states_of([paths[row] for row in far]), strict=True):
        sizes[row], times[row] = state
    near = [row for row in ask if not remote.is_remote(paths[row])]
    for row, file in zip(near, stat_all([paths[row] for row in near]), strict=True):
        if isinstance(file, os.stat_result):
            sizes[row], times[row] = file.st_size, file.st_mtime_ns
        else:
            absent = isinstance(file, FileNotFoundError | NotADirectoryError | ValueError)
            sizes[row], times[row] = ABSENT if absent else UNKNOWN
    return sizes, times


def _numbers(table: pd.DataFrame, name: str, manifest: str) -> NDArray[np.int64]:
    """(rows,) int64, −1 where nothing is given."""
    numbers = np.full(len(table), -1, dtype=np.int64)
    for row, text in enumerate(table.pop(name) if name in table else ()):
        try:
            numbers[row] = int(text.strip() or -1)
        except (ValueError, OverflowError):
            raise ConfigError(
                f"{manifest} has {name} {text.strip()!r}: give a whole number, or leave it empty"
            ) from None
    return numbers
