"""The small columns in memory: read from the arrays, changed, committed chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray

from store.errors import StoreDamaged
from store.layout import COLUMNS, FILLS, ROWS_PER_CHUNK, STATUS_NAMES, STEP_FILLS

Columns = dict[str, NDArray[Any]]

_CHUNKS_PER_WRITE = 64  # bounds what one write of a million new rows holds twice


def read_column(arrays: Mapping[str, zarr.Array[Any]], name: str, rows: int) -> NDArray[Any]:
    """The first `rows` values of a per-clip column; strings as objects, unknown where missing.

    Raises `StoreDamaged` with the column's name where its bytes cannot be decoded.
    """
    if name not in arrays:
        return fill_column(name, rows)
    array = arrays[name]
    stop = min(rows, array.shape[0])
    try:
        values = np.asarray(array[:stop])
    except OSError:
        raise
    except Exception as error:
        raise StoreDamaged(
            f"the column {name} of {array.store_path} cannot be decoded ({error}): "
            "run `pixels-once verify --repair`"
        ) from error
    if FILLS[name][0] == "string":
        values = values.astype(object)
    if stop < rows:
        values = np.concatenate([values, fill_column(name, rows - stop)])
    return values


def read_columns(
    arrays: Mapping[str, zarr.Array[Any]], rows: int, names: Iterable[str] = COLUMNS
) -> Columns:
    """Several per-clip columns, read side by side."""
    names = list(names)
    with ThreadPoolExecutor(4) as threads:
        values = threads.map(lambda name: read_column(arrays, name, rows), names)
        return dict(zip(names, values, strict=True))


def fill_column(name: str, rows: int) -> NDArray[Any]:
    """A column of rows of which nothing is known."""
    dtype, fill = FILLS[name]
    return np.full(rows, fill, dtype=object if dtype == "string" else dtype)


def cast(name: str, values: Any, rows: int) -> NDArray[Any]:
    """Values for `rows` rows of a column (one for all, or one each), in the column's type.

    Missing strings (None, NaN) are empty. Raises `ValueError` on a wrong length or type.
    """
    if name not in FILLS:
        raise ValueError(f"{name} is no column of the store: it has {', '.join(COLUMNS)}")
    dtype = FILLS[name][0]
    if dtype == "string":
        raw = np.broadcast_to(np.asarray(values, dtype=object), (rows,))
        return np.array(["" if pd.isna(v) else str(v) for v in raw], dtype=object)
    return np.broadcast_to(np.asarray(values).astype(dtype), (rows,)).copy()


def frame(columns: Mapping[str, NDArray[Any]], rows: NDArray[np.int64]) -> pd.DataFrame:
    """The table that users see: one line per row, `state` in words beside the `status` number."""
    data: dict[str, Any] = {}
    for name, values in columns.items():
        some = values if len(values) == len(rows) else values[rows]
        data[name] = pd.Series(
            some, index=rows, dtype="str" if FILLS[name][0] == "string" else None
        )
    status = np.asarray(data["status"])
    data["status"] = pd.Series(status.astype(np.int8), index=rows)
    codes = np.where(status < len(STATUS_NAMES), status, -1).astype(np.int8)
    data["state"] = pd.Series(
        pd.Categorical.from_codes(codes, categories=list(STATUS_NAMES)),  # type: ignore[call-overload]
        index=rows,
    )
    return pd.DataFrame(data, index=pd.Index(rows, name="row"))


class DirtyChunks:
    """Which chunks of which column hold values that the store does not have yet."""

    def __init__(self) -> None:
        self._chunks: dict[str, set[int]] = {}

    def __bool__(self) -> bool:
        return any(self._chunks.values())

    def add(self, name: str, rows: NDArray[np.int64]) -> None:
        """Remember the chunks of these rows."""
        self._chunks.setdefault(name, set()).update(np.unique(rows // ROWS_PER_CHUNK).tolist())

    def spans(self, name: str, rows: int) -> Iterator[tuple[int, int]]:
        """Runs of neighbouring dirty chunks as row ranges (start, stop), in order."""
        chunks = sorted(self._chunks.get(name, ()))
        while chunks:
            length = 1
            while (
                length < min(len(chunks), _CHUNKS_PER_WRITE)
                and chunks[length] == chunks[0] + length
            ):
                length += 1
            start = chunks[0] * ROWS_PER_CHUNK
            yield start, min(start + length * ROWS_PER_CHUNK, rows)
            chunks = chunks[length:]

    def chunks(self, name: str) -> list[int]:
        """The dirty chunks of a column, in order."""
        return sorted(self._chunks.get(name, ()))

    def clean(self, name: str) -> None:
        """Forget a column's chunks: they are stored."""
        self._chunks.pop(name, None)


class StepColumns:
    """The columns with one value per step, held only where they are being changed.

    A million rows of them are 360 MB, so a chunk is read when rows of it are set and dropped when
    it has been committed.
    """

    def __init__(self, arrays: Mapping[str, zarr.Array[Any]]) -> None:
        self._arrays = arrays
        self._changed: dict[str, dict[int, NDArray[Any]]] = {name: {} for name in STEP_FILLS}

    def put(self, name: str, rows: NDArray[np.int64], values: NDArray[Any]) -> None:
        """Set rows of a column, (n, steps)."""
        array = self._arrays[name]
        values = np.broadcast_to(values, (len(rows), array.shape[1])).astype(STEP_FILLS[name][0])
        for chunk in np.unique(rows // ROWS_PER_CHUNK).tolist():
            start = chunk * ROWS_PER_CHUNK
            held = self._changed[name].get(chunk)
            stop = min(start + ROWS_PER_CHUNK, array.shape[0])
            if held is None or len(held) < stop - start:  # the store has grown since
                fresh = np.array(array[start:stop])
                if held is not None:
                    fresh[: len(held)] = held
                held = self._changed[name][chunk] = fresh
            here = (rows // ROWS_PER_CHUNK) == chunk
            held[rows[here] - start] = values[here]

    def changed(self, name: str) -> Iterator[tuple[int, NDArray[Any]]]:
        """The changed chunks of a column: (chunk number, its values)."""
        yield from sorted(self._changed[name].items(), key=lambda item: item[0])

    def clean(self, name: str) -> None:
        """Drop a column's chunks: they are stored."""
        self._changed[name] = {}

    def __bool__(self) -> bool:
        return any(self._changed.values())
