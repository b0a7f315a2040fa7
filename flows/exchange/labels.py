"""Labels, splits and groups from a CSV file: of clips that are in a store, or that come into one."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.features.catalog.table import SPLIT_NAMES
from pipeline.plain import unescaped
from pipeline.spans import Span

FOLLOWED = ("label", "split", "group")
_NAMES = {"video_id": "id", "path": "id", "video_name": "id", "tag": "label"}
_FILES = ("video_id", "path", "video_name")
_BOUNDS = ("start", "end", "start_frame", "end_frame")
Lines = list[tuple[int, list[str]]]
_MOST_CHARACTERS = 1 << 20  # of one value: a manifest of ours has a list of times in one


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What a file of labels changes in a store's table.

    `rows` (n,) int64 and `values` (the columns that the file has, n rows) are of clips that both
    know; `changed` names, per column, the positions whose value differs; `unknown` are ids of the
    file that the store does not have.
    """

    rows: NDArray[np.int64]
    values: pd.DataFrame
    changed: dict[str, NDArray[np.int64]]
    unknown: list[str]

    def lines(self, table: pd.DataFrame) -> list[tuple[str, str, str, str]]:
        """(id, column, before, after) of every change, in the order of rows."""
        ids = table["video_id"]
        found = [
            (row, name, str(table[name][row]), str(self.values[name].iloc[i]))
            for name, positions in self.changed.items()
            for i, row in zip(positions.tolist(), self.rows[positions].tolist(), strict=True)
        ]
        return [(str(ids[row]), name, before, after) for row, name, before, after in sorted(found)]


def read_labels(path: str) -> pd.DataFrame:
    """The file's `id` (or `video_id`, `path`, `video_name`) and those of label, split, group it has.

    A manifest with bounds names parts of files; their ids are those that `features` gives them.
    A header is needed; `.tsv` is split at tabs; a `'` before a formula's sign, which our own tables
    have for the sake of spreadsheets, is dropped. Raises `ConfigError` for a file that cannot be used:
    not there, not UTF-8, without ids or without any of the three columns, two rows of one id.
    """
    tab = path.lower().endswith(".tsv")
    csv.field_size_limit(_MOST_CHARACTERS)
    try:
        with Path(path).expanduser().open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, delimiter="\t" if tab else ",", strict=True)
            names = [name.strip() for name in next(rows, [])]
            lines = [(rows.line_num, row) for row in rows if any(row)]
    except (OSError, ValueError, csv.Error) as error:
        detail = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"the labels {path} cannot be read ({detail}): look at the file"
        ) from None
    if set(names) & set(_BOUNDS):
        names, lines = _with_ids(path, names, lines)
    head = [_NAMES.get(name, name) for name in names]
    twice = [name for name in ("id", *FOLLOWED) if head.count(name) > 1]
    if twice:
        raise ConfigError(f"{path} gives {twice[0]} in two columns: keep one")
    for number, row in lines:
        if len(row) > len(head) and any(row[len(head) :]):
            raise ConfigError(
                f"{path} has {len(row)} values for {len(head)} columns in line {number}: put values "
                "that hold the separator in double quotes"
            )
    names = [name for name in FOLLOWED if name in head]
    least = max((head.index(name) + 1 for name in ("id", *names) if name in head), default=0)
    for number, row in lines:
        if len(row) < least:
            raise ConfigError(
                f"{path} has {len(row)} values for {len(head)} columns in line {number}: write a "
                "separator for each empty value, too"
            )
    if "id" not in head or not names:
        raise ConfigError(
            f"{path} has the columns {', '.join(head) or 'none'}: it needs id (or path) and at least "
            "one of label, split and group"
        )
    at = {name: head.index(name) for name in ("id", *names)}
    columns = {n: [unescaped(row[i].strip()) for _, row in lines] for n, i in at.items()}
    table = pd.DataFrame(columns, dtype=object)
    doubled = table["id"][table["id"].duplicated()]
    if len(doubled):
        raise ConfigError(f"{path} has {doubled.iloc[0]!r} twice: keep one row for each clip")
    if "split" in table:
        table["split"] = _splits(table["split"], path)
    return table


def _with_ids(path: str, names: list[str], lines: Lines) -> tuple[list[str], Lines]:
    """The same with one column for the id, of a manifest that lists parts of files by their bounds."""
    others = [i for i, name in enumerate(names) if name not in ("id", *_FILES, *_BOUNDS)]
    made: Lines = []
    for number, row in lines:
        cells = dict(zip(names, row, strict=False))
        file = next((cells[name] for name in _FILES if name in cells), "")
        try:
            span = Span.of(*(cells.get(name, "") for name in _BOUNDS))
        except ConfigError as error:
            raise ConfigError(f"{path}, line {number}: {error}") from None
        own = cells.get("id", "").strip() or span.named(file.strip())
        made.append((number, [own, *(row[i] for i in others if i < len(row))]))
    return ["id", *(names[i] for i in others)], made


def changes_of(labels: pd.DataFrame, table: pd.DataFrame) -> Changes:
    """The labels held against a store's table."""
    at = pd.Index(table["video_id"]).get_indexer(pd.Index(labels["id"]))
    known = labels[at >= 0].drop(columns="id").reset_index(drop=True)
    rows = table.index.to_numpy()[at[at >= 0]]
    changed = {}
    for name in known:
        before = table[name].loc[rows].to_numpy().astype(object)
        differs = np.flatnonzero(before != known[name].to_numpy())
        if len(differs):
            changed[str(name)] = differs
    return Changes(rows=rows, values=known, changed=changed, unknown=labels["id"][at < 0].tolist())


def _splits(values: pd.Series, path: str) -> list[str]:
    lower = [value.lower() for value in values]
    wrong = sorted(set(lower) - set(SPLIT_NAMES) - {""})
    if wrong:
        raise ConfigError(f"{path} has the split {wrong[0]!r}: use train, val or test")
    return [SPLIT_NAMES[value] if value else "" for value in lower]
