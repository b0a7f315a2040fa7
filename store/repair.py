"""Repairing damage: damaged rows become pending, and the next run recomputes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from store.arrays import open_arrays, open_group
from store.errors import StoreDamaged, translated
from store.layout import COLUMNS, FILLS, STEP_COLUMNS, STEP_FILLS
from store.lease import Lease
from store.place import Place
from store.verify import Report
from store.writer import Writer

FROM_CATALOG = frozenset({"label", "split", "group", "size_bytes", "mtime_ns"})
"""Columns that every run fills in from its catalog; for the others the clip must be read again."""


def repair(
    url: str,
    report: Report,
    *,
    owner: str,
    lease: bool = True,
    storage_options: Mapping[str, Any] | None = None,
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
    place = Place(url, storage_options)
    with translated(place.url):
        held, before = Lease.acquire(place, owner) if lease else (None, None)
        try:
            reset = _reset_chunks(place, report)
            writer = Writer(place, held, before)
        except BaseException:
            if held is not None:
                held.release(before.batches if before else ())
            raise
        with writer:
            rows = _rows_to_redo(report, writer, reset)
            writer.unmake(rows)
            writer.flush()
    return len(rows)


def _reset_chunks(place: Place, report: Report) -> set[int]:
    """Fill undecodable chunks as unknown; returns the rows whose clips must be read again."""
    arrays = open_arrays(open_group(place, read_only=False), (*STEP_COLUMNS, *COLUMNS))
    rows = set[int]()
    for name, chunks in report.chunks.items():
        array = arrays[name]
        fill = (STEP_FILLS if name in STEP_FILLS else FILLS)[name][1]
        for chunk in chunks:
            start = chunk * array.chunks[0]
            stop = min(start + array.chunks[0], array.shape[0])
            array[start:stop] = fill
            if name not in FROM_CATALOG:
                rows.update(range(start, stop))
    return rows


def _rows_to_redo(report: Report, writer: Writer, reset: set[int]) -> NDArray[np.int64]:
    rows = reset | set(report.damaged["row"].tolist())
    rows |= set(writer.check_batches(writer.suspects).tolist())
    return np.array(sorted(row for row in rows if row < len(writer)), dtype=np.int64)
