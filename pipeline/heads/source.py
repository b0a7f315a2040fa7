"""The protocol of what a training reads its sequences from.

The store's reader satisfies `SequenceSource` without importing it; so does anything in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pandas as pd

READY = 1
"""The status of a row whose features may be used (format version 1)."""

Rows = npt.NDArray[np.int64]
Names = npt.NDArray[Any]
"""(clips,) text objects."""


class SequencesLike(Protocol):
    """Some rows' sequences: features (n, steps, *shape), mask (n, steps) bool, rows (n,) int64."""

    @property
    def features(self) -> npt.NDArray[Any]: ...
    @property
    def mask(self) -> npt.NDArray[np.bool_]: ...
    @property
    def rows(self) -> npt.NDArray[np.int64]: ...


@runtime_checkable
class SequenceSource(Protocol):
    """Anything that serves masked sequences with a table of their clips.

    `table()` is indexed by row number and has at least `video_id`, `label`, `split`, `group` and
    `status`. `load` may leave rows out (damaged ones): the caller uses `Sequences.rows`.
    """

    @property
    def fingerprint(self) -> str: ...
    @property
    def spec(self) -> dict[str, Any]: ...
    @property
    def classes(self) -> list[str]: ...
    @property
    def steps(self) -> int: ...
    @property
    def shape(self) -> tuple[int, ...]: ...

    def table(self) -> pd.DataFrame: ...
    def load(self, rows: Any = None) -> SequencesLike: ...
    def batches(
        self,
        rows: Any = ...,
        size: int = ...,
        *,
        shuffle: bool = ...,
        seed: int = ...,
        epoch: int = ...,
    ) -> Iterator[Any]: ...
    def digests(self, rows: Any) -> npt.NDArray[np.uint32]: ...


def usable(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that a head can learn from: ready, and with a label."""
    return table[(table["status"] == READY) & (table["label"].astype(str) != "")]


def normalised(table: pd.DataFrame) -> pd.DataFrame:
    """The table with labels and groups as text without blanks around them: `Serve ` is `Serve`."""
    clean = {name: table[name].astype(str).str.strip() for name in ("label", "group")}
    return table.assign(**clean)


def texts(table: pd.DataFrame, column: str) -> Names:
    """A column of a table as text, (clips,)."""
    return table[column].astype(str).to_numpy(dtype=object)
