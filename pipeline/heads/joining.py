"""Which clips several stores have in common, by id: what must be equal in them, and what is left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.errors import ConfigError, SpecMismatch
from pipeline.heads.source import READY, Mask, Names, Rows, normalised, texts

NOT_JOINED = 4
"""The status, unknown to stores, of a row of the first stream that is ready there and not joined."""
LACKING, OTHER_BYTES, WITHOUT_TIMES = "not_in_every_stream", "other_bytes", "without_times"
"""Why a clip is left out of a join, as `left_out` counts it."""
COLUMNS = ("label", "split", "group")
"""What streams must agree on where they know it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Matched:
    """The clips that all streams have.

    table: the first stream's, `status` `NOT_JOINED` for a clip that is ready in it and not joined;
        label, split, group and hash are those of the first stream that knows them
    rows: (clips,) int64 row numbers of the joined clips in the first stream, ascending
    numbers: (clips, streams) int64, their rows in every stream
    left_out: reason → number of clips
    example: reason → one clip's id
    """

    table: pd.DataFrame
    rows: Rows
    numbers: Rows
    left_out: Mapping[str, int]
    example: Mapping[str, str]


def match_clips(tables: Sequence[pd.DataFrame], names: Sequence[str]) -> Matched:
    """Match the clips of several tables by id; `names` are what messages call the streams.

    A clip is joined if it is ready in every stream and was made from the same bytes in all. Raises
    `ConfigError` if no clip is, `SpecMismatch` if the streams disagree on a clip's label, split or group.
    """
    tables = [_by_id(table) for table in tables]
    first = tables[0]
    ids = first.index
    ready = [table.index[table["status"] == READY] for table in tables]
    wanted = ids.isin(ready[0])
    in_all: Mask = np.array(wanted)
    for others in ready[1:]:
        in_all &= ids.isin(others)
    common = ids[in_all]
    columns = [table.reindex(common) for table in tables]
    same = _same_bytes(columns)
    elsewhere = pd.Index([])
    for others in ready[1:]:
        elsewhere = elsewhere.union(others.difference(ids))
    lacking = [*ids[wanted & ~in_all], *elsewhere]
    which = {LACKING: lacking, OTHER_BYTES: list(common[~same])}
    left_out = {reason: len(clips) for reason, clips in which.items() if clips}
    example = {reason: str(which[reason][0]) for reason in left_out}
    if not same.any():
        raise ConfigError(_nothing(tables, names, ready, left_out, example))
    common, columns = common[same], [table[same] for table in columns]
    known = {column: _agreed(column, columns, names, common) for column in COLUMNS}
    known["sha256"] = _first_known([_texts(table, "sha256") for table in columns])
    table = first.copy()
    table.loc[ids.isin(ids[wanted].difference(common)), "status"] = NOT_JOINED
    for column, values in known.items():
        if column in table or (values != "").any():
            texts_now = table[column].astype(object) if column in table else ""
            table[column] = texts_now
            table.loc[common, column] = values
    numbers = np.stack([table["_row"].to_numpy(np.int64) for table in columns], axis=1)
    table = table.reset_index().set_index("_row").rename_axis("row")
    order = np.argsort(numbers[:, 0], kind="stable")
    return Matched(
        table=table,
        rows=numbers[order, 0],
        numbers=numbers[order],
        left_out=left_out,
        example=example,
    )


def _by_id(table: pd.DataFrame) -> pd.DataFrame:
    """The table by `video_id`, with row numbers in `_row` and texts without blanks around them."""
    table = normalised(table)
    table = table.assign(_row=table.index.to_numpy(np.int64), video_id=texts(table, "video_id"))
    if "split" in table:
        table["split"] = table["split"].astype(str).str.strip()
    return table.set_index("video_id")


def _texts(table: pd.DataFrame, column: str) -> Names:
    if column not in table:
        return np.full(len(table), "", dtype=object)
    return texts(table, column)


def _same_bytes(tables: Sequence[pd.DataFrame]) -> Mask:
    """(clips,): whether no two streams know of different bytes, by hash or, without one, by size."""
    same = np.ones(len(tables[0]), dtype=bool)
    hashes = [_texts(table, "sha256") for table in tables]
    sizes = [
        table["size_bytes"].to_numpy(np.int64)
        if "size_bytes" in table
        else np.zeros(len(table), np.int64)
        for table in tables
    ]
    for one in range(len(tables)):
        for other in range(one):
            hashed = (hashes[one] != "") & (hashes[other] != "")
            sized = ~hashed & (sizes[one] > 0) & (sizes[other] > 0)
            same &= ~(hashed & (hashes[one] != hashes[other]))
            same &= ~(sized & (sizes[one] != sizes[other]))
    return same


def _first_known(values: Sequence[Names]) -> Names:
    known = values[0].copy()
    for others in values[1:]:
        known = np.where(known == "", others, known)
    return known


def _agreed(
    column: str, tables: Sequence[pd.DataFrame], names: Sequence[str], ids: pd.Index[str]
) -> Names:
    """(clips,) what the streams say; raises `SpecMismatch` if two that know it differ."""
    values = [_texts(table, column) for table in tables]
    known = values[0].copy()
    for theirs, name in zip(values[1:], names[1:], strict=True):
        differ = (known != "") & (theirs != "") & (known != theirs)
        if column == "split":  # whose names are known in any case
            lower = [np.array([text.lower() for text in part], object) for part in (known, theirs)]
            differ &= lower[0] != lower[1]
        if differ.any():
            at = int(np.argmax(differ))
            raise SpecMismatch(
                f"{name} gives {int(differ.sum())} of {len(ids)} clips another {column} than "
                f"{names[0]} ({ids[at]} for one: {theirs[at]!r}, not {known[at]!r}): correct one with "
                "`relabel`, or run `features` for both on the same clips"
            )
        known = np.where(known == "", theirs, known)
    return known


def _nothing(
    tables: Sequence[pd.DataFrame],
    names: Sequence[str],
    ready: Sequence[pd.Index[str]],
    left_out: Mapping[str, int],
    example: Mapping[str, str],
) -> str:
    if left_out.get(OTHER_BYTES):
        return (
            f"{' and '.join(names)} were made from other bytes of all {left_out[OTHER_BYTES]} clips that "
            f"they share (such as {example[OTHER_BYTES]}): run `features` for them on the same files"
        )
    have = ", ".join(
        f"{name} has {len(clips)}{f' such as {clips[0]}' if len(clips) else ''}"
        for name, clips in zip(names, ready, strict=True)
    )
    return (
        f"no clip is ready in every stream ({have}): streams are joined by the clips' ids, so run "
        "`features` for all of them on the same folder"
    )
