"""Sending damage back to the start: damaged rows become pending, the next run makes them anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from store.arrays import open_arrays, open_group
from store.errors import StoreDamaged, translated
from store.layout import COLUMNS, FILLS, ROWS_PER_CHUNK, STEP_COLUMNS, STEP_FILLS
from store.lease import Lease
from store.place import Place
from store.verify import Report
from store.writer import Writer

FROM_CATALOG = frozenset({"label", "split", "group", "size_bytes", "mtime_ns"})
"""Columns that every run fills in from its catalog; the others need the clip to be read again."""


def repair(
    url: str,
    report: Report,
    *,
    owner: str,
    lease: bool = True,
    storage_options: Mapping[str, Any] | None = None,
) -> int:
    """Make a store whole after `verify`; returns how many rows became pending.

    Damaged rows become pending. A chunk of a small column that cannot be decoded is reset to
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
    place = Place(url, storage_options)
    with translated(place.url):
        held, before = Lease.acquire(place, owner) if lease else (None, None)
        try:
            _reset_chunks(place, report)
            writer = Writer(place, held, before)
        except BaseException:
            if held is not None:
                held.release()
            raise
        with writer:
            rows = _rows_to_redo(report, len(writer), writer)
            writer.mark(rows, 0)
            writer.flush()
    return len(rows)


def _reset_chunks(place: Place, report: Report) -> None:
    arrays = open_arrays(open_group(place, read_only=False), (*STEP_COLUMNS, *COLUMNS))
    for name, chunks in report.chunks.items():
        array = arrays[name]
        fill = (STEP_FILLS if name in STEP_FILLS else FILLS)[name][1]
        for chunk in chunks:
            start = chunk * ROWS_PER_CHUNK
            array[start : min(start + ROWS_PER_CHUNK, array.shape[0])] = fill


def _rows_to_redo(report: Report, length: int, writer: Writer) -> np.ndarray[Any, Any]:
    rows = set(report.damaged["row"].tolist())
    for name, chunks in report.chunks.items():
        if name in FROM_CATALOG:
            continue
        for chunk in chunks:
            start = chunk * ROWS_PER_CHUNK
            rows.update(range(start, min(start + ROWS_PER_CHUNK, length)))
    rows.update(writer.check_batches(writer.suspects).tolist())
    return np.array(sorted(row for row in rows if row < length), dtype=np.int64)
