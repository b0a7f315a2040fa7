"""Clips listed in a file: whole files, or parts of files."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.features.catalog import remote
from pipeline.features.catalog.activitynet import read_activitynet
from pipeline.features.catalog.manifest_text import LINE, read_csv
from pipeline.features.catalog.table import ABSENT, SPLIT_NAMES, UNKNOWN, make_catalog, ucf_group
from pipeline.features.files import NoAnswer, answered, stat_all
from pipeline.spans import WHOLE, Span, split_fragment

MANIFEST_ENDINGS = (".csv", ".tsv", ".json")

_NAMES = {"path": ("path", "video_name"), "label": ("label", "tag")}
_SPANS = ("start", "end", "start_frame", "end_frame")


def list_manifest(manifest: str) -> pd.DataFrame:
    """The clips of a CSV (or tab-separated `.tsv`) file with a header, or of ActivityNet's JSON.

    They come in the file's order.

    Columns: `path` or `video_name`; optional `label` or `tag`, `split`, `group`, `size_bytes` and
    `mtime_ns`; others are ignored. Relative paths start at the manifest's folder; names that are
    not there are looked for in the folder named like the manifest (`train.csv`, `train/`). With
    `size_bytes` and `mtime_ns` given no file is touched. A path may be a URL (its id is the URL without
    what follows `?`). Without a group, UCF names give theirs.

    A clip is a part of its file if `start` and `end` (seconds, `83.5` or `1:23.5`), or `start_frame` and
    `end_frame`, say so, or the fragment `#t=1,3` of its path; its id is the file's with such a fragment,
    or what the column `id` has. Parts of one file are one group where no other is given.
    Raises `ConfigError` for a column or a value that cannot be used, two rows with one id, or two of
    the same part.
    """
    json = manifest.lower().endswith(".json")
    table = read_activitynet(manifest) if json else read_csv(manifest)
    given = _one_of(table, "path", manifest)
    if given is None:
        raise ConfigError(f"{manifest} has no column path or video_name: add one")
    if not given:
        raise ConfigError(f"{manifest} lists no clip: add a row for each")
    remote.refuse_credentials(manifest)
    folder = os.path.dirname(manifest)
    given, spans = _checked(table, given, manifest, folder)
    base = _base_of(folder, manifest, given)
    paths = [p if p.startswith("/") or remote.is_remote(p) else f"{base}/{p}" for p in given]
    files = [_id_of(g, p, folder, base) for g, p in zip(given, paths, strict=True)]
    ids = _ids(table, files, spans)
    _refuse_twice(ids, paths, spans, manifest)
    # Numbers first: their text is the largest part of a long manifest, and goes with this.
    sizes, times = _sizes(table, paths, manifest)
    empty = [""] * len(ids)
    labels = _one_of(table, "label", manifest) or empty
    columns: dict[str, Any] = {
        "video_id": ids,
        "path": paths,
        "file": [
            "" if name == file else sys.intern(file) for name, file in zip(ids, files, strict=True)
        ],
        "label": [sys.intern(label.strip()) for label in labels],
        "split": _splits(table["split"], manifest) if "split" in table else empty,
        "group": _groups(list(table.get("group", empty)), files, paths, spans),
        "size_bytes": sizes,
        "mtime_ns": times,
    }
    return make_catalog(columns, spans)


def _checked(
    table: pd.DataFrame, given: Sequence[str], manifest: str, folder: str
) -> tuple[list[str], list[Span]]:
    """The paths as they are to be looked for, and the part of its file that each row names."""
    paths = list(map(remote.local_path, given))
    parts = [_part_of(path, folder) for path in paths]
    paths = [
        os.path.normpath(p) if not remote.is_remote(p) and ("./" in p or "//" in p) else p
        for p, _ in parts
    ]
    for row, path in enumerate(paths):
        if not path:
            raise ConfigError(f"{manifest} has no path in row {row + 2}: fill it in")
        if remote.is_remote(path):
            remote.refuse_credentials(path)
            remote.refuse_protocol(path, f"{manifest}, row {row + 2},")
    bounds = [table.get(name) for name in _SPANS]
    if all(column is None for column in bounds):
        return paths, [] if all(span.whole for _, span in parts) else [span for _, span in parts]
    empty = [""] * len(paths)
    spans = []
    for row, values in enumerate(
        zip(*(empty if column is None else column for column in bounds), strict=True)
    ):
        spans.append(_span(values, parts[row][1], f"{manifest}, {_place(table, row)}"))
    return paths, spans


def _part_of(path: str, folder: str) -> tuple[str, Span]:
    """A path and the part that its fragment names, unless a file has that very name."""
    if "#" not in path or (part := split_fragment(path))[1].whole:
        return path, WHOLE
    beside = os.path.join(folder, path)
    if not remote.is_remote(beside):
        with contextlib.suppress(NoAnswer):
            if answered(beside, lambda: os.path.lexists(beside)):
                return path, WHOLE
    return part


def _span(values: Sequence[str], named: Span, where: str) -> Span:
    try:
        span = Span.of(*values)
        if not (span.whole or named.whole):
            raise ConfigError("the path has a fragment, and there are bounds beside it: give one")
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return named if span.whole else span


def _place(table: pd.DataFrame, row: int) -> str:
    """Where in the manifest a row stands, in words."""
    line = table[LINE].iloc[row]
    return line if isinstance(line, str) else f"line {line}"


def _ids(table: pd.DataFrame, files: Sequence[str], spans: Sequence[Span]) -> list[str]:
    """Each row's id: of a file alone its path. Only where there are parts does a column `id` count."""
    if not spans:
        return list(files)
    own = table.get("id", [""] * len(files))
    each = zip(own, files, spans, strict=True)
    return [name.strip() or span.named(file) for name, file, span in each]


def _refuse_twice(
    ids: Sequence[str], paths: Sequence[str], spans: Sequence[Span], manifest: str
) -> None:
    doubled = np.flatnonzero(pd.Series(ids, dtype=object).duplicated())
    if len(doubled):
        row = int(doubled[0])
        raise ConfigError(f"{manifest} lists {ids[row]!r} twice (row {row + 2}): keep one")
    seen: dict[tuple[str, Span], str] = {}
    for name, path, span in zip(ids, paths, spans, strict=bool(spans)):
        if (other := seen.setdefault((path, span), name)) != name:
            raise ConfigError(
                f"{manifest} lists the same part of {path} as {other!r} and as {name!r}: keep one"
            )


def _groups(
    given: Sequence[str], files: Sequence[str], paths: Sequence[str], spans: Sequence[Span]
) -> list[str]:
    """Each row's group as given, or as a UCF name says; the parts of one file are one group else.

    It is named as the first row spells the file, whichever links lead to it.
    """
    groups = [
        sys.intern(group.strip() or ucf_group(name))
        for group, name in zip(given, files, strict=True)
    ]
    if not spans:
        return groups
    real = {path: _real(path) for path in dict.fromkeys(paths)}
    parted = {real[path] for path, span in zip(paths, spans, strict=True) if not span.whole}
    first: dict[str, str] = {}
    for i, path in enumerate(paths):
        name = first.setdefault(real[path], files[i])
        if not groups[i] and real[path] in parted:
            groups[i] = sys.intern(name)
    return groups


def _real(path: str) -> str:
    """What a path leads to."""
    if remote.is_remote(path):
        return remote.without_query(path)
    try:
        return answered(path, lambda: os.path.realpath(path))
    except NoAnswer:
        return path


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
    # A file is looked at once, whatever parts of it are listed.
    far = list(dict.fromkeys(paths[row] for row in ask if remote.is_remote(paths[row])))
    near = list(dict.fromkeys(paths[row] for row in ask if not remote.is_remote(paths[row])))
    states = dict(zip(far, remote.states_of(far), strict=True))
    for path, file in zip(near, stat_all(near), strict=True):
        if isinstance(file, os.stat_result):
            states[path] = file.st_size, file.st_mtime_ns
        else:
            absent = isinstance(file, FileNotFoundError | NotADirectoryError | ValueError)
            states[path] = ABSENT if absent else UNKNOWN
    for row in ask:
        sizes[row], times[row] = states[paths[row]]
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
