"""The small columns: read into memory, cast, shown as a table, and written where they have changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray

from store.arrays import by_chunk, chunk_key, span
from store.errors import StoreDamaged, decoding
from store.layout import COLUMNS, FILLS, GONE, READY, STATUS_NAMES, STEP_FILLS
from store.place import Place

TABLE = (*COLUMNS, "state")
"""The columns of the table that users see."""

Arrays = Mapping[str, zarr.Array[Any]]
Columns = dict[str, NDArray[Any]]

_CHUNKS_PER_WRITE = 64  # bounds what one write of a million new rows holds twice
_REPEATED = frozenset({"label", "split", "group", "file", "decoder", "reason"})


def read_column(arrays: Arrays, name: str, rows: int) -> NDArray[Any]:
    """The first `rows` values of a per-clip column; strings as objects, unknown where missing.

    Raises `StoreDamaged` with the column's name where its bytes cannot be decoded.
    """
    if name not in arrays:
        return fill_column(name, rows)
    array = arrays[name]
    stop = min(rows, array.shape[0])
    with decoding(f"the column {name} of {array.store_path}"):
        values = np.asarray(array[:stop])
    if FILLS[name][0] == "string":
        values = values.astype(object)
    if name in _REPEATED:
        values[:] = _shared(values)
    if stop < rows:
        values = np.concatenate([values, fill_column(name, rows - stop)])
    return values


def _shared(values: Iterable[str]) -> list[str]:
    """The same texts as one object per distinct value: 60 MB less per column and million rows."""
    known: dict[str, str] = {}
    return [known.setdefault(value, value) for value in values]


def read_columns(arrays: Arrays, rows: int, names: Iterable[str] = COLUMNS) -> Columns:
    """Several per-clip columns, read side by side."""
    names = list(names)
    with ThreadPoolExecutor(4) as threads:
        values = threads.map(lambda name: read_column(arrays, name, rows), names)
        return dict(zip(names, values, strict=True))


def fill_column(name: str, rows: int) -> NDArray[Any]:
    """A column filled with its unknown value."""
    dtype, fill = FILLS[name]
    return np.full(rows, fill, dtype=object if dtype == "string" else dtype)


def require_columns(names: Iterable[str], known: Iterable[str] = COLUMNS) -> None:
    """Raise `ValueError` for a name that no per-clip column has."""
    for name in names:
        if name not in known:
            raise ValueError(f"{name} is no column of the store: it has {', '.join(COLUMNS)}")


def cast(name: str, values: Any, rows: int) -> NDArray[Any]:
    """Values for `rows` rows of a column (one for all, or one each), in the column's type.

    Missing strings (None, NaN) are empty. Raises `ValueError` on a wrong length or type.
    """
    require_columns([name])
    dtype = FILLS[name][0]
    if dtype == "string":
        raw = np.broadcast_to(np.asarray(values, dtype=object), (rows,))
        pairs = zip(raw.tolist(), pd.isna(raw).tolist(), strict=True)
        out = np.empty(rows, dtype=object)
        texts = ("" if missing else str(value) for value, missing in pairs)
        out[:] = _shared(texts) if name in _REPEATED else list(texts)
        return out
    return np.broadcast_to(np.asarray(values).astype(dtype), (rows,)).copy()


def named(columns: Mapping[str, NDArray[Any]]) -> NDArray[np.int64]:
    """The numbers of the rows that exist: those with an id."""
    return np.flatnonzero(columns["video_id"] != "")


def require_new(ids: NDArray[Any], there: NDArray[Any]) -> None:
    """Raise `ValueError` for an id that is empty, given twice, or there already."""
    index = pd.Index(ids)
    twice = index[index.duplicated() | index.isin(there) | (index == "")]
    if len(twice):
        raise ValueError(
            f"{len(twice)} ids cannot be appended, {str(twice[0])!r} for one: every row needs "
            "an id that no other row has"
        )


def named_rows(columns: Columns, url: str) -> int:
    """How many rows exist: those up to the last with an id. Raises `StoreDamaged` if one lost its id."""
    ids = columns["video_id"]
    named = np.flatnonzero(ids != "")
    rows = int(named[-1]) + 1 if len(named) else 0
    lost = np.flatnonzero((ids == "") & ((columns["status"] != 0) | (np.arange(len(ids)) < rows)))
    if len(lost):
        raise StoreDamaged(
            f"row {lost[0]} of {url} has lost its video_id: restore the folder video_id from "
            "a copy of the store, or make a new store"
        )
    return rows


def holds_features(status: NDArray[Any], digest: NDArray[Any]) -> NDArray[np.bool_]:
    """Rows whose features count: ready ones, and gone ones whose clip may return."""
    return np.asarray((status == READY) | ((status == GONE) & (digest != 0)))


def frame(columns: Mapping[str, NDArray[Any]], rows: NDArray[np.int64]) -> pd.DataFrame:
    """The table that users see: one line per row, `state` in words beside the `status` number."""
    data: dict[str, Any] = {}
    for name, values in columns.items():
        some = values if len(values) == len(rows) else values[rows]
        kind = "str" if FILLS[name][0] == "string" else None
        data[name] = pd.Series(some, index=rows, dtype=kind)
    status = np.asarray(data["status"])
    data["status"] = pd.Series(status.astype(np.int8), index=rows)
    # Signed before -1 goes in: NumPy 2.5 no longer takes it beside unsigned numbers.
    codes = np.where(status < len(STATUS_NAMES), status.astype(np.int8), np.int8(-1))
    data["state"] = pd.Series(
        pd.Categorical.from_codes(codes, categories=list(STATUS_NAMES)),  # type: ignore[call-overload]
        index=rows,
    )
    return pd.DataFrame(data, index=pd.Index(rows, name="row"))


def put_steps(
    arrays: Arrays,
    changed: dict[tuple[str, int], NDArray[Any]],
    name: str,
    rows: NDArray[np.int64],
    values: NDArray[Any],
) -> None:
    """Set rows of a column that has one value per step; `commit_steps` writes what has changed.

    A million rows of them are 360 MB, so a chunk is read when rows of it are set and dropped when
    it has been committed. changed: (column, chunk) → its values. values: (n, steps), or anything that
    broadcasts to it.
    """
    array = arrays[name]
    values = np.broadcast_to(values, (len(rows), array.shape[1])).astype(STEP_FILLS[name][0])
    for chunk, at in by_chunk(rows, array.chunks[0]):
        start, stop = span(array, chunk)
        held = changed.get((name, chunk))
        if held is None or len(held) < stop - start:  # the store has grown since
            fresh = np.array(array[start:stop])
            if held is not None:
                fresh[: len(held)] = held
            held = changed[name, chunk] = fresh
        held[rows[at] - start] = values[at]


def commit_steps(
    place: Place, arrays: Arrays, changed: Mapping[tuple[str, int], NDArray[Any]]
) -> None:
    """Write the changed chunks of the step columns; on a local disk, sync them."""
    for (name, chunk), values in sorted(changed.items(), key=lambda item: item[0]):
        start, _ = span(arrays[name], chunk)
        arrays[name][start : start + len(values)] = values
    place.sync(chunk_key(arrays[name], chunk) for name, chunk in changed)


def commit_columns(
    place: Place,
    arrays: Arrays,
    columns: Mapping[str, NDArray[Any]],
    dirty: Mapping[str, Iterable[int]],
    names: Iterable[str],
) -> None:
    """Write the dirty chunks of these columns; on a local disk, sync them before returning."""
    keys = []
    for name in names:
        array, values = arrays[name], columns[name]
        chunks = sorted(dirty.get(name, ()))
        for run in _runs(chunks):
            start, (_, stop) = run[0] * array.chunks[0], span(array, run[-1])
            part = values[start:stop]
            if FILLS[name][0] == "string":
                # Zarr converts objects to its string type one by one; numpy does it at once.
                part = part.astype(np.dtypes.StringDType())
            array[start:stop] = part
        keys += [chunk_key(array, chunk) for chunk in chunks]
    place.sync(keys)


def _runs(chunks: Sequence[int]) -> Iterator[Sequence[int]]:
    """Chunks, ascending, as runs of neighbours; each is written at once."""
    breaks = [i for i in range(1, len(chunks)) if chunks[i] != chunks[i - 1] + 1]
    for first, last in pairwise([0, *breaks, len(chunks)]):
        for start in range(first, last, _CHUNKS_PER_WRITE):
            yield chunks[start : min(start + _CHUNKS_PER_WRITE, last)]


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
    sizes = {name: arrays[name].chunks[0] for name in COLUMNS}
    dirty = {name: range(old // size, (new - 1) // size + 1) for name, size in sizes.items()}
    commit_columns(place, arrays, columns, dirty, COLUMNS[:-1])
    arrays["status"].resize((new,))
