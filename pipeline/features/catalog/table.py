"""The catalog's columns, and how a table of them is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.errors import ConfigError, did_you_mean

CATALOG_COLUMNS = ["video_id", "path", "label", "split", "group", "size_bytes", "mtime_ns"]

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "development": "val",
    "test": "test",
    "testing": "test",
}
"""What a folder or a manifest may call a split → the name that is stored."""

ABSENT = (-1, 0)
"""(size_bytes, mtime_ns) of a file that is not there."""

UNKNOWN = (-1, -1)
"""(size_bytes, mtime_ns) of a clip whose service or mount did not answer."""


def make_catalog(columns: Mapping[str, Sequence[Any] | NDArray[Any]]) -> pd.DataFrame:
    """A frame of `CATALOG_COLUMNS` from equally long sequences: text as str, numbers as int64."""
    numbers = ("size_bytes", "mtime_ns")
    return pd.DataFrame(
        {
            name: np.asarray(columns[name], dtype=np.int64)
            if name in numbers
            else pd.array(list(columns[name]), dtype="str")
            for name in CATALOG_COLUMNS
        }
    )


def narrow(
    catalog: pd.DataFrame, *, classes: Sequence[str] = (), limit: int = 0, per_class: int = 0
) -> NDArray[np.bool_]:
    """Which clips of a catalog are wanted: (clips,) bool.

    classes: only these labels. per_class: at most so many of each label, the first ones.
    limit: at most so many in all, spread evenly over the labels. 0 and () choose everything.
    Raises `ConfigError` for a class that no clip has.
    """
    labels = catalog["label"].astype(str)
    known = sorted(set(labels))
    for name in classes:
        if name not in known:
            hint = did_you_mean(name, known, most=20)
            raise ConfigError(f"no clip has the class {name!r}: {hint}")
    for name, number in (("limit", limit), ("per_class", per_class)):
        if number < 0:
            raise ConfigError(f"{name} is {number}: give 0 for all, or a number of clips")
    place = labels.groupby(labels).cumcount().to_numpy()
    chosen = labels.isin(list(classes)).to_numpy() if classes else np.ones(len(catalog), bool)
    positions = np.flatnonzero(chosen & (place < per_class) if per_class else chosen)
    if limit:
        # The first of every class, then the second of every class, and so on.
        positions = positions[np.argsort(place[positions], kind="stable")[:limit]]
    result = np.zeros(len(catalog), dtype=np.bool_)
    result[positions] = True
    return result
