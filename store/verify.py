"""Reading a whole store back: which rows are damaged and how; `repair` makes those pending again."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray

from store.arrays import NEEDED, by_chunk, open_arrays, open_group, span
from store.chunks import decode, row_digests
from store.columns import Arrays, Columns, fill_column, holds_features
from store.errors import StoreDamaged, translated
from store.layout import COLUMNS, FAILED, FILLS, STATUS_NAMES, STEP_COLUMNS, STEP_FILLS
from store.place import Options, Place
from store.writer import Writer

Finding = tuple[int, str]  # row, what is wrong with it
Chunks = dict[str, list[int]]  # small column → its chunks that cannot be decoded


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The result of `verify`.

    `damaged` is a frame of `row`, `video_id` and `what`, one line per damaged row (its first
    fault); `checked` counts rows, `sound` those without a fault; `columns` names small columns of
    which bytes cannot be decoded, `chunks` says which of their chunks; `problems` are sentences
    about the store as a whole.
    """

    damaged: pd.DataFrame
    checked: int
    sound: int
    columns: list[str]
    chunks: Chunks = field(repr=False)
    problems: list[str]

    @property
    def ok(self) -> bool:
        """Whether there is no damage at all."""
        return not (len(self.damaged) or self.columns or self.problems)


def verify(
    url: str,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    storage_options: Options = None,
) -> Report:
    """Read every byte of a store and check it. Changes nothing.

    on_progress: called with (rows of features read, rows to read). Rows that a run rewrites meanwhile
    do not count as damaged. Raises `StoreNotFound`, `StoreTooNew`, `StoreDamaged` (not
    even its metadata can be read).
    """
    place = Place(url, storage_options)
    with translated(place.url):
        group = open_group(place)
        names = ("status", "features", *STEP_COLUMNS, *COLUMNS[:-1])
        arrays = open_arrays(group, names, needed=(*NEEDED, "digest", "mask"))
        problems = _check_group(group, arrays)
        rows = arrays["status"].shape[0]
        chunks: Chunks = {}
        columns = {name: _tolerant(arrays, name, rows, chunks) for name in COLUMNS}
        for name in STEP_COLUMNS:
            deque(_decoded(arrays, name, rows, chunks), maxlen=0)
        findings = _check_table(columns)
        findings += _check_steps(arrays, columns, chunks)
        findings += _check_features(arrays, columns, chunks, on_progress)
        findings = _unchanged_since(place, findings, columns)
    damaged = pd.DataFrame(findings, columns=["row", "what"]).drop_duplicates("row")
    damaged = damaged.sort_values("row", ignore_index=True)
    damaged.insert(1, "video_id", columns["video_id"][damaged["row"].to_numpy(dtype=np.int64)])
    return Report(
        damaged=damaged,
        checked=rows,
        sound=rows - len(damaged),
        columns=[name for name in (*COLUMNS, *STEP_COLUMNS) if name in chunks],
        chunks=chunks,
        problems=problems,
    )


def _check_group(group: zarr.Group, arrays: Arrays) -> list[str]:
    problems = []
    fingerprint, batch = str(group.attrs["fingerprint"]), group.attrs["batch"]
    text = json.dumps(group.attrs["spec"], sort_keys=True, separators=(",", ":"))
    edited = "someone has edited zarr.json, restore it from a copy"
    if hashlib.sha256(text.encode()).hexdigest() != fingerprint:
        problems.append(
            f"the fingerprint {fingerprint[:12]} is not that of the spec in the same store: {edited}"
        )
    size, rows = arrays["features"].chunks[0], arrays["status"].shape[0]
    if batch != size:
        problems.append(f"the batch is {batch} and chunks hold {size} rows: {edited}")
    problems += [
        f"the array {name} has {array.shape[0]} rows and status {rows}: the next run levels them"
        for name, array in arrays.items()
        if array.shape[0] != rows
    ]
    return problems


def _tolerant(arrays: Arrays, name: str, rows: int, chunks: Chunks) -> NDArray[Any]:
    """A column as far as it can be decoded, unknown elsewhere; bad chunks go into `chunks`."""
    out = fill_column(name, rows)
    for start, values in _decoded(arrays, name, rows, chunks):
        string = FILLS[name][0] == "string"
        out[start : start + len(values)] = values.astype(object) if string else values
    return out


def _decoded(
    arrays: Arrays, name: str, rows: int, chunks: Chunks
) -> Iterator[tuple[int, NDArray[Any]]]:
    """(first row, values) of each chunk of a small column; bad chunks go into `chunks`."""
    for chunk, start, stop in _spans(arrays[name], rows) if name in arrays else ():
        try:
            yield start, decode(arrays[name], start, stop)
        except StoreDamaged:
            chunks.setdefault(name, []).append(chunk)


def _spans(array: zarr.Array[Any], rows: int) -> Iterator[tuple[int, int, int]]:
    stop = min(rows, array.shape[0])
    size = array.chunks[0]
    for chunk, start in enumerate(range(0, stop, size)):
        yield chunk, start, min(start + size, stop)


def _check_table(columns: Columns) -> list[Finding]:
    ids, status = columns["video_id"], columns["status"]
    named = ids != ""
    unknown = np.flatnonzero(status >= len(STATUS_NAMES))
    faults = {
        "video_id is lost": ~named & (status > 0),
        "video_id is another row's too": pd.Series(ids, dtype="str").duplicated().to_numpy()
        & named,
        "failed without a reason": (status == FAILED) & (columns["reason"] == ""),
    }
    found = [(row, f"status is {status[row]}") for row in unknown.tolist()]
    return found + _findings(np.arange(len(ids)), faults)


def _findings(rows: NDArray[np.int64], faults: Mapping[str, NDArray[np.bool_]]) -> list[Finding]:
    """The rows that have a fault, by fault."""
    return [(row, what) for what, at in faults.items() for row in rows[at].tolist()]


def _check_steps(arrays: Arrays, columns: Columns, chunks: Chunks) -> Iterator[Finding]:
    bad = {chunk for name in STEP_COLUMNS for chunk in chunks.get(name, ())}
    if not all(name in arrays for name in STEP_COLUMNS):
        return
    kept = holds_features(columns["status"], columns["digest"])
    for chunk, start, stop in _spans(arrays["mask"], len(columns["status"])):
        ready = np.flatnonzero(kept[start:stop])
        if chunk in bad or not len(ready):
            continue
        mask, frames, times = (decode(arrays[n], start, stop)[ready] for n in STEP_COLUMNS)
        both = mask[:, 1:] & mask[:, :-1]
        faults = {
            "mask has no real frame": ~mask.any(axis=1),
            "mask is not right-padded": (mask[:, 1:] & ~mask[:, :-1]).any(axis=1),
            "frame_index does not fit the mask": ((frames >= 0) != mask).any(axis=1),
            "frame_index does not increase": (both & (np.diff(frames, axis=1) <= 0)).any(axis=1),
            "timestamp does not fit the mask": (np.isfinite(times) != mask).any(axis=1),
        }
        yield from _findings(start + ready, faults)


def _check_features(
    arrays: Arrays, columns: Columns, chunks: Chunks, on_progress: Callable[[int, int], None]
) -> list[Finding]:
    features = arrays["features"]
    ready = np.flatnonzero(holds_features(columns["status"], columns["digest"]))
    # Rows whose digest cannot be read are the column's damage, not the features'.
    ready = ready[~np.isin(ready // arrays["digest"].chunks[0], chunks.get("digest", []))]
    batches = [ready[at] for _, at in by_chunk(ready, features.chunks[0])]

    def check(rows: NDArray[np.int64]) -> list[Finding]:
        start, stop = span(features, int(rows[0]) // features.chunks[0])
        try:
            chunk = decode(features, start, stop)
        except StoreDamaged:
            return [(int(row), "features cannot be decoded") for row in rows]
        some = chunk[rows - start]
        faults = {
            "features do not match their digest": row_digests(some) != columns["digest"][rows],
            "features are not finite": ~np.isfinite(some.reshape(len(some), -1)).all(axis=1),
        }
        if not set((rows // arrays["mask"].chunks[0]).tolist()) & set(chunks.get("mask", ())):
            mask = decode(arrays["mask"], start, stop)[rows - start]
            padding = some.reshape(*mask.shape, -1).any(axis=2) & ~mask
            faults["features are not zero in the padding"] = padding.any(axis=1)
        return _findings(rows, faults)

    found, done = [], 0
    with ThreadPoolExecutor(2) as threads:
        for rows, faults in zip(batches, threads.map(check, batches), strict=True):
            found += faults
            done += len(rows)
            on_progress(done, len(ready))
    return found


def _unchanged_since(place: Place, findings: list[Finding], columns: Columns) -> list[Finding]:
    """Only findings on rows that no run has touched since they were read."""
    if not findings:
        return findings
    arrays = open_arrays(open_group(place), ("status", "digest"))
    now = {name: _tolerant(arrays, name, arrays["status"].shape[0], {}) for name in arrays}
    return [
        (row, what)
        for row, what in findings
        if row < len(now["status"])
        and all(now[name][row] == columns[name][row] for name in ("status", "digest"))
    ]


FROM_CATALOG = frozenset({"label", "split", "group", "size_bytes", "mtime_ns"})
"""Columns that every run fills in from its catalog; for the others the clip must be read again."""


def repair(
    url: str, report: Report, *, owner: str, lease: bool = True, storage_options: Options = None
) -> int:
    """Repair a store after `verify`; returns how many rows are to be recomputed.

    Damaged rows become pending; rows whose clip is gone stay gone, and do not count as ready when it
    returns (`Writer.unmake`). A chunk of a small column that cannot be decoded is reset to
    "unknown"; where a run cannot fill the column in from its catalog alone, the chunk's rows
    become pending. `video_id` cannot be rebuilt: that is refused with `StoreDamaged`, and nothing
    is changed. Raises `StoreBusy` while a run writes.
    """
    lost = report.damaged["what"].str.startswith("video_id").sum()
    if "video_id" in report.columns or lost:
        raise StoreDamaged(
            f"the ids of {url} are damaged and nothing else says which row is which clip: restore "
            "the folder video_id from a copy of the store, or make a new store"
        )
    reset: set[int] = set()
    with (
        translated(url),
        Writer.acquire(
            url,
            owner=owner,
            lease=lease,
            prepare=lambda place: reset.update(_reset_chunks(place, report)),
            storage_options=storage_options,
        ) as writer,
    ):
        redo = reset | set(report.damaged["row"].tolist())
        redo |= set(writer.check_batches(writer.suspects).tolist())
        rows = np.array(sorted(row for row in redo if row < len(writer)), dtype=np.int64)
        writer.unmake(rows)
        writer.flush()
    return len(rows)


def _reset_chunks(place: Place, report: Report) -> set[int]:
    """Fill undecodable chunks as unknown; returns the rows whose clips must be read again."""
    arrays = open_arrays(open_group(place, read_only=False), (*STEP_COLUMNS, *COLUMNS))
    rows = set[int]()
    for name, chunks in report.chunks.items():
        array = arrays[name]
        fill = (FILLS | STEP_FILLS)[name][1]
        for chunk in chunks:
            start, stop = span(array, chunk)
            array[start:stop] = fill
            if name not in FROM_CATALOG:
                rows.update(range(start, stop))
    return rows
