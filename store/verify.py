"""Reading a whole store back: which rows are sound, which are damaged and how."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray

from store.arrays import open_arrays, open_group
from store.chunks import decode, row_digests
from store.columns import fill_column, holds_features
from store.errors import StoreDamaged, translated
from store.layout import (
    COLUMNS,
    FAILED,
    FILLS,
    STATUS_NAMES,
    STEP_COLUMNS,
)
from store.place import Place

Finding = tuple[int, str]  # row, what is wrong with it


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
    chunks: dict[str, list[int]] = field(repr=False)
    problems: list[str]

    @property
    def ok(self) -> bool:
        """Whether there is no damage at all."""
        return not (len(self.damaged) or self.columns or self.problems)


def verify(
    url: str,
    *,
    on_progress: Callable[[int, int], None] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Report:
    """Read every byte of a store and check it. Changes nothing.

    on_progress: called with (rows of features read, rows to read). Rows that a run rewrites meanwhile
    do not count as damaged. Raises `StoreNotFound`, `StoreTooNew`, `StoreDamaged` (not
    even its metadata can be read).
    """
    place = Place(url, storage_options)
    with translated(place.url):
        group = open_group(place)
        arrays = open_arrays(group, ("status", "features", *STEP_COLUMNS, *COLUMNS[:-1]))
        problems = _check_group(group, arrays)
        rows = arrays["status"].shape[0]
        chunks: dict[str, list[int]] = {}
        columns = {name: _tolerant(arrays, name, rows, chunks) for name in COLUMNS}
        for name in STEP_COLUMNS:
            _probe(arrays, name, rows, chunks)
        findings = list(_check_table(columns))
        findings += _check_steps(arrays, columns, chunks)
        findings += _check_features(arrays, columns, chunks, on_progress)
        findings = _unchanged_since(place, findings, columns)
    damaged = (
        pd.DataFrame(findings, columns=["row", "what"])
        .drop_duplicates("row")
        .sort_values("row", ignore_index=True)
    )
    damaged.insert(1, "video_id", columns["video_id"][damaged["row"].to_numpy(dtype=np.int64)])
    return Report(
        damaged=damaged,
        checked=rows,
        sound=rows - len(damaged),
        columns=[name for name in (*COLUMNS, *STEP_COLUMNS) if name in chunks],
        chunks=chunks,
        problems=problems,
    )


def _check_group(group: zarr.Group, arrays: Mapping[str, zarr.Array[Any]]) -> list[str]:
    missing = [n for n in ("status", "features", "video_id", "digest", "mask") if n not in arrays]
    if missing:
        raise StoreDamaged(
            f"{group.store_path} has no array {', '.join(missing)}: restore it from a copy, "
            "or make a new store"
        )
    problems = []
    text = json.dumps(group.attrs["spec"], sort_keys=True, separators=(",", ":"))
    if hashlib.sha256(text.encode()).hexdigest() != group.attrs["fingerprint"]:
        problems.append(
            f"the fingerprint {str(group.attrs['fingerprint'])[:12]} is not that of the spec in "
            "the same store: someone has edited zarr.json, restore it from a copy"
        )
    if group.attrs["batch"] != arrays["features"].chunks[0]:
        problems.append(
            f"the batch is {group.attrs['batch']} and chunks hold {arrays['features'].chunks[0]} "
            "rows: someone has edited zarr.json, restore it from a copy"
        )
    rows = arrays["status"].shape[0]
    problems += [
        f"the array {name} has {array.shape[0]} rows and status {rows}: the next run levels them"
        for name, array in arrays.items()
        if array.shape[0] != rows
    ]
    return problems


def _tolerant(
    arrays: Mapping[str, zarr.Array[Any]], name: str, rows: int, chunks: dict[str, list[int]]
) -> NDArray[Any]:
    """A column as far as it can be decoded, unknown elsewhere; bad chunks go into `chunks`."""
    out = fill_column(name, rows)
    if name not in arrays:
        return out
    for chunk, start, stop in _spans(arrays[name], rows):
        try:
            values = decode(arrays[name], start, stop)
            out[start:stop] = values.astype(object) if FILLS[name][0] == "string" else values
        except StoreDamaged:
            chunks.setdefault(name, []).append(chunk)
    return out


def _probe(
    arrays: Mapping[str, zarr.Array[Any]], name: str, rows: int, chunks: dict[str, list[int]]
) -> None:
    for chunk, start, stop in _spans(arrays[name], rows) if name in arrays else ():
        try:
            decode(arrays[name], start, stop)
        except StoreDamaged:
            chunks.setdefault(name, []).append(chunk)


def _spans(array: zarr.Array[Any], rows: int) -> Iterator[tuple[int, int, int]]:
    stop = min(rows, array.shape[0])
    size = array.chunks[0]
    for chunk, start in enumerate(range(0, stop, size)):
        yield chunk, start, min(start + size, stop)


def _check_table(columns: Mapping[str, NDArray[Any]]) -> Iterator[Finding]:
    ids, status = columns["video_id"], columns["status"]
    named = ids != ""
    for row in np.flatnonzero(status >= len(STATUS_NAMES)).tolist():
        yield row, f"status is {status[row]}"
    for row in np.flatnonzero(~named & (status > 0)).tolist():
        yield row, "video_id is lost"
    for row in np.flatnonzero(pd.Series(ids, dtype="str").duplicated().to_numpy() & named).tolist():
        yield row, "video_id is another row's too"
    for row in np.flatnonzero((status == FAILED) & (columns["reason"] == "")).tolist():
        yield row, "failed without a reason"


def _check_steps(
    arrays: Mapping[str, zarr.Array[Any]],
    columns: Mapping[str, NDArray[Any]],
    chunks: Mapping[str, list[int]],
) -> Iterator[Finding]:
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
        for what, at in faults.items():
            yield from ((start + int(row), what) for row in ready[at])


def _check_features(
    arrays: Mapping[str, zarr.Array[Any]],
    columns: Mapping[str, NDArray[Any]],
    chunks: Mapping[str, list[int]],
    on_progress: Callable[[int, int], None] | None,
) -> list[Finding]:
    features = arrays["features"]
    ready = np.flatnonzero(holds_features(columns["status"], columns["digest"]))
    # Rows whose digest cannot be read are the column's damage, not the features'.
    ready = ready[~np.isin(ready // arrays["digest"].chunks[0], chunks.get("digest", []))]
    size = features.chunks[0]
    batches = np.split(ready, np.flatnonzero(np.diff(ready // size)) + 1) if len(ready) else []

    def check(rows: NDArray[np.int64]) -> list[Finding]:
        start = int(rows[0]) // size * size
        stop = min(start + size, features.shape[0])
        try:
            chunk = decode(features, start, stop)
        except StoreDamaged:
            return [(int(row), "features cannot be decoded") for row in rows]
        some = chunk[rows - start]
        wrong = row_digests(some) != columns["digest"][rows]
        endless = ~np.isfinite(some.reshape(len(some), -1)).all(axis=1)
        found = [(int(row), "features do not match their digest") for row in rows[wrong]]
        found += [(int(row), "features are not finite") for row in rows[endless]]
        if not set((rows // arrays["mask"].chunks[0]).tolist()) & set(chunks.get("mask", ())):
            mask = decode(arrays["mask"], start, stop)[rows - start]
            padding = some.reshape(*mask.shape, -1).any(axis=2) & ~mask
            found += [
                (int(row), "features are not zero in the padding")
                for row in rows[padding.any(axis=1)]
            ]
        return found

    found, done = [], 0
    with ThreadPoolExecutor(2) as threads:
        for rows, faults in zip(batches, threads.map(check, batches), strict=True):
            found += faults
            done += len(rows)
            if on_progress is not None:
                on_progress(done, len(ready))
    return found


def _unchanged_since(
    place: Place, findings: list[Finding], columns: Mapping[str, NDArray[Any]]
) -> list[Finding]:
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
