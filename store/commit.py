"""Changes of the small columns: which chunks are dirty, and how they are written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from store.arrays import chunk_key
from store.durable import sync_files
from store.layout import COLUMNS, FILLS, STEP_COLUMNS, STEP_FILLS
from store.place import Place

Arrays = Mapping[str, zarr.Array[Any]]

_CHUNKS_PER_WRITE = 64  # bounds what one write of a million new rows holds twice


class DirtyChunks:
    """Which chunks of which column hold values that are not written yet."""

    def __init__(self) -> None:
        self._chunks: dict[str, set[int]] = {}

    def __bool__(self) -> bool:
        return any(self._chunks.values())

    def add(self, name: str, chunks: Iterable[int]) -> None:
        """Remember these chunks of a column."""
        self._chunks.setdefault(name, set()).update(chunks)

    def of(self, name: str) -> list[int]:
        """A column's dirty chunks, in order."""
        return sorted(self._chunks.get(name, ()))

    def runs(self, name: str) -> Iterator[range]:
        """A column's dirty chunks as runs of neighbours, each written at once."""
        chunks = np.array(self.of(name), dtype=np.int64)
        for run in np.split(chunks, np.flatnonzero(np.diff(chunks) > 1) + 1):
            for start in range(0, len(run), _CHUNKS_PER_WRITE):
                part = run[start : start + _CHUNKS_PER_WRITE]
                yield range(int(part[0]), int(part[-1]) + 1)

    def clear(self) -> None:
        """Everything has been written."""
        self._chunks.clear()


class StepColumns:
    """The columns with one value per step, held only where they are being changed.

    A million rows of them are 360 MB, so a chunk is read when rows of it are set and dropped when
    it has been committed.
    """

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = arrays
        self.changed: dict[str, dict[int, NDArray[Any]]] = {name: {} for name in STEP_COLUMNS}

    def __bool__(self) -> bool:
        return any(self.changed.values())

    def put(self, name: str, rows: NDArray[np.int64], values: NDArray[Any]) -> None:
        """Set rows of a column; values are (n, steps), or anything that broadcasts to it."""
        array = self._arrays[name]
        values = np.broadcast_to(values, (len(rows), array.shape[1])).astype(STEP_FILLS[name][0])
        size = array.chunks[0]
        for chunk in np.unique(rows // size).tolist():
            start = chunk * size
            stop = min(start + size, array.shape[0])
            held = self.changed[name].get(chunk)
            if held is None or len(held) < stop - start:  # the store has grown since
                fresh = np.array(array[start:stop])
                if held is not None:
                    fresh[: len(held)] = held
                held = self.changed[name][chunk] = fresh
            here = rows // size == chunk
            held[rows[here] - start] = values[here]

    def clear(self) -> None:
        """Everything has been written."""
        for chunks in self.changed.values():
            chunks.clear()


def commit_steps(place: Place, arrays: Arrays, steps: StepColumns) -> None:
    """Write the changed chunks of the step columns; on a local disk, sync them."""
    keys = []
    for name in STEP_COLUMNS:
        array = arrays[name]
        for chunk, values in sorted(steps.changed[name].items()):
            start = chunk * array.chunks[0]
            array[start : start + len(values)] = values
            keys.append(chunk_key(name, chunk, array))
    _sync(place, keys)


def commit_columns(
    place: Place,
    arrays: Arrays,
    columns: Mapping[str, NDArray[Any]],
    dirty: DirtyChunks,
    names: Iterable[str],
) -> None:
    """Write the dirty chunks of these columns; on a local disk, sync them before returning."""
    keys = []
    for name in names:
        array, values = arrays[name], columns[name]
        size = array.chunks[0]
        for run in dirty.runs(name) if dirty.of(name) else ():
            part = values[run.start * size : run.stop * size]
            if FILLS[name][0] == "string":
                # Zarr converts objects to its string type one by one; numpy does it at once.
                part = part.astype(np.dtypes.StringDType())
            array[run.start * size : run.start * size + len(part)] = part
        keys += [chunk_key(name, chunk, array) for chunk in dirty.of(name)]
    _sync(place, keys)


def commit_growth(
    place: Place, arrays: Arrays, columns: Mapping[str, NDArray[Any]], old: int
) -> None:
    """Lengthen all arrays to the columns' length and write the rows from `old` on.

    `status`, by whose length a reader goes, grows last, when the new rows have their ids.
    """
    new = len(columns["status"])
    for name, array in arrays.items():
        if name != "status":
            array.resize((new, *array.shape[1:]))
    dirty = DirtyChunks()
    for name in COLUMNS:
        size = arrays[name].chunks[0]
        dirty.add(name, range(old // size, (new - 1) // size + 1))
    commit_columns(place, arrays, columns, dirty, COLUMNS[:-1])
    arrays["status"].resize((new,))


def _sync(place: Place, keys: list[str]) -> None:
    if place.local is not None and keys:
        sync_files([place.local / key for key in keys])
