"""Choosing clips by class and by number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.errors import ConfigError, did_you_mean


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
    chosen = labels.isin(list(classes)).to_numpy() if classes else np.ones(len(catalog), bool)
    place = labels[chosen].groupby(labels[chosen]).cumcount().to_numpy()
    positions = np.flatnonzero(chosen)
    if per_class:
        positions, place = positions[place < per_class], place[place < per_class]
    if limit:
        # The first of every class, then the second of every class, and so on.
        positions = positions[np.argsort(place, kind="stable")[:limit]]
    result = np.zeros(len(catalog), dtype=np.bool_)
    result[positions] = True
    return result
