"""Deleting features, chunk by chunk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from store.arrays import layout_of, open_arrays, open_group
from store.chunks import read_batch, write_batch
from store.errors import StoreDamaged
from store.place import Place
from store.previews import write_previews


def erase(
    url: str,
    rows: NDArray[np.int64],
    *,
    token: str | None,
    storage_options: Mapping[str, Any] | None = None,
) -> None:
    """Set the features and previews of these rows to zero. They must be committed as not ready.

    A chunk that cannot be decoded is zeroed whole: its other rows are damaged already.
    """
    features = open_arrays(open_group(Place(url, storage_options)), ("features",))["features"]
    size = layout_of(features).batch
    for batch in np.unique(rows // size).tolist():
        try:
            values = read_batch(url, batch, storage_options=storage_options).copy()
        except StoreDamaged:
            count = min(size, features.shape[0] - batch * size)
            values = np.zeros((count, *features.shape[1:]), features.dtype)
        values[rows[rows // size == batch] - batch * size] = 0
        write_batch(url, batch, values, token=token, storage_options=storage_options)
    empty: dict[int, list[bytes]] = {row: [] for row in rows.tolist()}
    write_previews(url, empty, token=token, storage_options=storage_options)
