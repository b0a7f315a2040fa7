"""A file as a whole, put together from the rows that are parts of it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from store.errors import StoreWarning
from store.layout import READY
from store.sequences import Sequences


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSequence:
    """The steps of one file in order of time, of all its ready rows, each frame once.

    features (n, *shape) of the store's dtype; times (n,) float32, seconds from the file's first frame;
    frames (n,) int32; labels (n,) text, of the row that a step is from, "" without one; rows (n,)
    int64, that row's number. Of a frame that several rows have, the row that begins first counts.
    """

    features: NDArray[Any]
    times: NDArray[np.float32]
    frames: NDArray[np.int32]
    labels: NDArray[Any]
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.times)

    def __repr__(self) -> str:
        last = f", to {self.times[-1]:.1f} s" if len(self) else ""
        return f"FileSequence(features {self.features.shape} {self.features.dtype}{last})"


class Rows(Protocol):
    """What a file is put together from; `store.Store` is one."""

    url: str

    def table(self) -> pd.DataFrame: ...
    def load(self, rows: ArrayLike | None = None) -> Sequences: ...
    def steps_of(self, rows: ArrayLike) -> tuple[NDArray[np.int32], NDArray[np.float32]]: ...


def rows_of_file(table: pd.DataFrame, file: str) -> pd.DataFrame:
    """The rows that are the file with this id, or parts of it, in the order of their beginnings."""
    mine = table[(table["file"] == file) | ((table["file"] == "") & (table["video_id"] == file))]
    begins = mine["start_s"].fillna(0.0) + mine["start_frame"].clip(lower=0)
    return mine.loc[begins.sort_values(kind="stable").index]


def sequence_of(source: Rows, file: str) -> FileSequence:
    """The whole of one file. Rows that are not ready, or damaged, are left out with a `StoreWarning`.

    file: its id, which is its path below the clips' folder. Raises `ValueError` where no row has it.
    """
    mine = rows_of_file(source.table(), file)
    if not len(mine):
        raise ValueError(
            f"{source.url} has no row of {file!r}: give the path below the clips' folder, as in the "
            "columns video_id and file"
        )
    ready = mine[mine["status"] == READY]
    if len(ready) < len(mine):
        states = mine.loc[mine["status"] != READY, "state"].value_counts()
        told = ", ".join(f"{count} {state}" for state, count in states.items() if count)
        warnings.warn(
            f"{len(mine) - len(ready)} of {len(mine)} rows of {file} are left out: {told}",
            StoreWarning,
            stacklevel=3,
        )
    loaded = source.load(ready.index.to_numpy())
    frames, times = source.steps_of(loaded.rows)
    mask = loaded.mask
    row = np.repeat(loaded.rows, mask.sum(axis=1))
    _, first = np.unique(frames[mask], return_index=True)
    labels = ready["label"].astype(str).reindex(row).to_numpy(dtype=object)
    return FileSequence(
        features=loaded.features[mask][first],
        times=times[mask][first],
        frames=frames[mask][first],
        labels=labels[first],
        rows=row[first],
    )
