"""The embeddings of a Parquet file, a part of a row group at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows.exchange import arrays
from pipeline.errors import ConfigError, UnreadableClip

_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4, "FIXED_LEN_BYTE_ARRAY": 4}  # 8 for all others


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

    def close(self) -> None:
        self._file.close()

    def read(self, row: int) -> NDArray[Any]:
        """One row's embedding, (steps, width). Raises `UnreadableClip`."""
        value = self._value(row)
        if not value.is_valid:
            raise UnreadableClip("no_frames", "its embedding is null")
        values, shape = value.values, [1]
        if is_list(values.type):
            shape = [len(values), -1]
            values = values.flatten()
        if values.null_count or str(values.type) in ("string", "binary"):
            raise UnreadableClip("wrong_dtype", f"its embedding holds nulls or {values.type}")
        flat: NDArray[Any] = values.to_numpy(zero_copy_only=False)
        return flat.reshape(shape[0], -1) if shape[0] else flat.reshape(0, 1)

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
