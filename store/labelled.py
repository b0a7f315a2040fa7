"""Batches with labels, for training programs that know neither this package nor Keras."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, Protocol, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from store.sequences import Sequences

Batch = dict[str, NDArray[Any]]
"""`features` (n, steps, *shape), `mask` (n, steps) bool, `label` (n,) int64 (an index into the store's
classes, −1 without a label) and `rows` (n,) int64."""


class Snapshot(Protocol):
    """What batches are made of; `store.Store` is one."""

    steps: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    classes: list[str]

    def table(self) -> pd.DataFrame: ...
    @property
    def batches(self) -> Callable[..., Iterator[Sequences]]: ...
    def reopened(self) -> Self: ...


class LabelledBatches:
    """An epoch of rows as batches, in an order of its own; can be pickled, and used after a fork.

    Raises `ValueError` for a size below 1.
    """

    def __init__(
        self, source: Snapshot, rows: NDArray[np.int64], size: int, *, shuffle: bool, seed: int
    ) -> None:
        if size < 1:
            raise ValueError(f"a batch of {size} rows cannot be: give 1 or more")
        self.source = source
        self._process = os.getpid()
        self._rows, self._size, self._shuffle, self._seed = rows, size, shuffle, seed
        labels = pd.Index(source.table()["label"].reindex(rows))
        self._labels = np.full(rows.max(initial=-1) + 1, -1, np.int64)  # by the row's number
        self._labels[rows] = pd.Index(source.classes).get_indexer(labels)

    def epoch(self, number: int, *, share: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
        """An epoch's batches; `share`: (k, n), those of the k-th of n readers."""
        if self._process != os.getpid():
            self.source, self._process = self.source.reopened(), os.getpid()
        order = {"shuffle": self._shuffle, "seed": self._seed, "epoch": number}
        for part in self.source.batches(self._rows, self._size, **order, share=share):
            label = self._labels[part.rows]
            yield {"features": part.features, "mask": part.mask, "label": label, "rows": part.rows}
