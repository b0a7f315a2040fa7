"""The per-clip columns in memory: read, cast, shown as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray

from store.errors import StoreDamaged
from store.layout import COLUMNS, FILLS, GONE, READY, STATUS_NAMES

Columns = dict[str, NDArray[Any]]

_REPEATED = frozenset({"label", "split", "group", "decoder", "reason"})


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
    if name in _REPEATED:
        # One object per distinct value, not per row: 60 MB less per column and million rows.
        known: dict[str, str] = {}
        values[:] = [known.setdefault(value, value) for value in values]
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
    """A column filled with its unknown value."""
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
        pairs = zip(raw.tolist(), pd.isna(raw).tolist(), strict=True)
        out = np.empty(rows, dtype=object)
        out[:] = ["" if missing else str(value) for value, missing in pairs]
        return out
    return np.broadcast_to(np.asarray(values).astype(dtype), (rows,)).copy()


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
        data[name] = pd.Series(
            some, index=rows, dtype="str" if FILLS[name][0] == "string" else None
        )
    status = np.asarray(data["status"])
    data["status"] = pd.Series(status.astype(np.int8), index=rows)
    # Signed before -1 goes in: NumPy 2.5 no longer takes it beside unsigned numbers.
    codes = np.where(status < len(STATUS_NAMES), status.astype(np.int8), np.int8(-1))
    data["state"] = pd.Series(
        pd.Categorical.from_codes(codes, categories=list(STATUS_NAMES)),  # type: ignore[call-overload]
        index=rows,
    )
    return pd.DataFrame(data, index=pd.Index(rows, name="row"))
