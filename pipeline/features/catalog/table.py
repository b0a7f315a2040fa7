"""The catalog's columns, and how a table of them is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

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
