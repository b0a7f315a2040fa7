"""Parquet files that others wrote: the column `embedding`, row after row, a part of a group at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows.exchange import arrays
from flows.exchange.arrays import Foreign, array_of
from flows.exchange.parquet_pages import Place, find_pages
from flows.exchange.raw import RawFile
from pipeline.errors import ConfigError, UnreadableClip


def is_list(kind: Any) -> bool:
    """Whether an Arrow type is a list of any kind."""
    import pyarrow.types as types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def parquet_module() -> Any:
    """`pyarrow.parquet`. Raises `ConfigError` with the remedy if it is not installed."""
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise ConfigError(
            "Parquet needs pyarrow, which is not installed: pip install 'pixels-once[parquet]'"
        ) from None
    return parquet


def _width(steps: Any) -> int:
    """How many numbers every step has. Raises `UnreadableClip` where they differ, or a step is null."""
    import pyarrow.compute

    if steps.null_count:
        raise UnreadableClip("wrong_dtype", "a step of its embedding is null")
    if hasattr(steps.type, "list_size"):
        return int(steps.type.list_size)
    widths = np.unique(pyarrow.compute.list_value_length(steps).to_numpy())
    if len(widths) > 1:
        raise UnreadableClip(
            "wrong_shape", f"its steps have from {widths[0]} to {widths[-1]} numbers each"
        )
    return int(widths[0]) if len(widths) else 1


def _step(shape: Sequence[int], width: int) -> tuple[int, ...]:
    """The shape of a step of so many numbers."""
    return tuple(shape) if len(shape) > 1 and math.prod(shape) == width else (width,)


_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4, "FIXED_LEN_BYTE_ARRAY": 4}  # 8 for all others


class ParquetRows:
    """The column `embedding`. Rows are asked for in order: going back reads the row group again."""

    def __init__(self, path: Path) -> None:
        self._file = parquet_module().ParquetFile(path)
        groups = self._file.metadata.num_row_groups
        rows = [self._file.metadata.row_group(i).num_rows for i in range(groups)]
        self._starts = np.cumsum([0, *rows])
        self._group = self._first = -1
        self._part: Any = ()
        self._rest: Iterator[Any] = iter(())
        self._raw = RawFile(path)
        self._pages: tuple[int, list[Place] | None] = (-1, None)

    def close(self) -> None:
        self._file.close()
        self._raw.close()

    def open(self, row: int, shape: Sequence[int], *, transpose: bool) -> Foreign:
        """One row's embedding; its steps have `shape` if that fits, since Parquet has lists only."""
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        if group != self._pages[0]:
            self._pages = (group, find_pages(self._file, group, self._raw))
        pages = self._pages[1]
        if pages is None or transpose:
            values = self.read(row)
            steps = (len(values), *_step(shape, values.shape[1]))
            return array_of(values.reshape(steps), transpose=transpose)
        page = pages[row - int(self._starts[group])]
        steps = (page.steps, *_step(shape, page.width))
        return self._raw.array(page.offset, steps, page.dtype)

    def read(self, row: int) -> NDArray[Any]:
        """One row's embedding, (steps, width). Raises `UnreadableClip`."""
        value = self._value(row)
        if not value.is_valid:
            raise UnreadableClip("no_frames", "its embedding is null")
        values, shape = value.values, [-1]
        if is_list(values.type):
            shape = [len(values), _width(values)]
            values = values.flatten()
        if values.null_count or str(values.type) in ("string", "binary"):
            raise UnreadableClip("wrong_dtype", f"its embedding holds nulls or {values.type}")
        flat: NDArray[Any] = values.to_numpy(zero_copy_only=False)
        return flat.reshape(shape) if len(shape) > 1 else flat.reshape(1, -1)

    def _value(self, row: int) -> Any:
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        if group != self._group or row < self._first:
            self._begin(group)
        while row >= self._first + len(self._part):
            self._first += len(self._part)
            self._part = next(self._rest).column(0)
        return self._part[row - self._first]

    def _begin(self, group: int) -> None:
        """Read the group from its first row on, as many rows at once as stay below the limit."""
        told = self._file.metadata.row_group(group)
        claimed = sum(
            column.num_values * _WIDTHS.get(column.physical_type, 8)
            for column in map(told.column, range(told.num_columns))
            if column.path_in_schema.split(".")[0] == "embedding"
        )
        row_bytes = max(claimed // told.num_rows, 1)
        if row_bytes > arrays.MOST_BYTES:
            raise UnreadableClip("too_large", f"its row group claims {claimed} bytes")
        at_once = max(1, min(told.num_rows, arrays.MOST_BYTES // 4 // row_bytes))
        self._rest = self._file.iter_batches(
            batch_size=at_once, row_groups=[group], columns=["embedding"]
        )
        self._group, self._first, self._part = group, int(self._starts[group]), ()
