"""The data's own split: what its `split` column says."""

from __future__ import annotations

import numpy as np
import pandas as pd

from pipeline.errors import ConfigError
from pipeline.heads import cuts
from pipeline.heads.source import Rows

NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
    "development": "validation",
    "test": "test",
    "testing": "test",
}
"""What the `split` column may say (blanks around it and its case do not count), and which part it
means."""


def given_parts(clips: pd.DataFrame) -> list[str]:
    """The part that the `split` column gives each clip: train, validation, test, or "".

    A column in which no name is known (`fold1`, `a`) gives no parts. Raises `ConfigError` where
    some are: a misspelt name would leave its clips out.
    """
    said = clips["split"].astype(str).str.strip().str.lower()
    parts = said.map(NAMES).fillna("").astype(str)
    strange = said[(parts == "") & (said != "")].value_counts()
    if len(strange) and (parts != "").any():
        named_so = ", ".join(f"{name!r} on {count}" for name, count in strange.items())
        raise ConfigError(
            f"the split column has names that are not known ({named_so} of {len(clips)} clips): "
            f"use {', '.join(dict.fromkeys(NAMES.values()))}, or leave it empty"
        )
    return list(parts)


def given_split(clips: pd.DataFrame, seed: int, share: float, *, test: bool) -> Rows:
    """0 (train), 1 (validation), 2 (test) or −1 for each clip, as the `split` column says.

    Where it names no validation clips, a `share` of the training clips becomes that. `test`: whether
    test clips are asked of it.
    """
    parts = given_parts(clips)
    wanted = ("train", "test") if test else ("train",)
    missing = [name for name in wanted if name not in parts]
    if missing:
        raise ConfigError(
            f"the data's own split has no {' and no '.join(missing)} clips: "
            "use split=grouped or split=stratified"
        )
    numbers = {"train": 0, "validation": 1, "test": 2}
    where: Rows = np.fromiter((numbers.get(part, -1) for part in parts), np.int64, len(parts))
    if not (where == 1).any():
        where[where == 0] = cuts.inner_validation(clips[where == 0], share, seed)
    return where
