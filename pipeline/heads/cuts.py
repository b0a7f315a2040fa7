"""Clips cut into parts: pure functions from a table and a seed to a part number for each clip."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from pipeline.errors import ConfigError
from pipeline.heads.grouping import assign_groups
from pipeline.heads.source import Rows, texts
from pipeline.heads.units import contents, group_names

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
"""Names in the `split` column (blanks around them and case do not count) → the part they mean."""


def by_groups(clips: pd.DataFrame, shares: Sequence[float], seed: int) -> Rows:
    """The part (0 … len(shares) − 1) of every clip, whole groups together."""
    wanted = np.asarray(shares, dtype=float)
    return assign_groups(group_names(clips), label_numbers(clips), wanted, seed)


def stratified(clips: pd.DataFrame, shares: Sequence[float], seed: int) -> Rows:
    """Each class cut in the same proportions; the first part takes what rounding leaves.

    Clips of equal bytes go where the first of them goes.
    """
    content = contents(clips)
    content[content == ""] = texts(clips, "video_id")[content == ""]
    unit, _ = pd.factorize(content)
    _, first = np.unique(unit, return_index=True)
    return _each_class(label_numbers(clips)[first], shares, seed)[unit]


def inner_validation(training: pd.DataFrame, share: float, seed: int) -> Rows:
    """0 (train) or 1 (validation) for each clip, by whole groups if there are enough."""
    _, sizes = np.unique(group_names(training).astype(str), return_counts=True)
    if len(sizes) >= 4 and sizes.max() <= len(training) / 2:
        return by_groups(training, (1 - share, share), seed)
    return stratified(training, (1 - share, share), seed)


def given_parts(clips: pd.DataFrame) -> list[str]:
    """The part that the `split` column gives each clip: train, validation, test, or "".

    A column in which no name is known (`fold1`, `a`) gives no parts. Raises `ConfigError` where
    some are: a misspelt name would leave its clips out.
    """
    names = clips["split"].astype(str).str.strip().str.lower()
    parts = names.map(NAMES).fillna("").astype(str)
    unknown = names[(parts == "") & (names != "")].value_counts()
    if len(unknown) and (parts != "").any():
        shown = ", ".join(f"{name!r} on {count}" for name, count in unknown.items())
        raise ConfigError(
            f"the split column has names that are not known ({shown} of {len(clips)} clips): "
            f"use {', '.join(dict.fromkeys(NAMES.values()))}, or leave it empty"
        )
    return list(parts)


def given_split(clips: pd.DataFrame, seed: int, share: float, *, test: bool) -> Rows:
    """0 (train), 1 (validation), 2 (test) or −1 for each clip, by the `split` column.

    If it names no validation clips, a `share` of the training clips becomes validation.
    test: whether it must name test clips
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
        where[where == 0] = inner_validation(clips[where == 0], share, seed)
    return where


def label_numbers(clips: pd.DataFrame) -> Rows:
    """Each clip's class as a number, (clips,) int64."""
    _, labels = np.unique(clips["label"].astype(str).to_numpy(dtype=str), return_inverse=True)
    return labels.astype(np.int64)


def _each_class(labels: Rows, shares: Sequence[float], seed: int) -> Rows:
    rng = np.random.default_rng(seed)
    where = np.zeros(len(labels), dtype=np.int64)
    wanted = np.asarray(shares, dtype=float) / sum(shares)
    for label in range(int(labels.max(initial=-1)) + 1):
        members = rng.permutation(np.flatnonzero(labels == label))
        counts = np.floor(wanted * len(members) + 0.5).astype(int)
        counts[1:] = np.where(wanted[1:] > 0, np.maximum(counts[1:], 1), 0)
        while counts[1:].sum() > max(len(members) - 1, 0):
            counts[1 + int(np.argmax(counts[1:]))] -= 1
        stops = np.cumsum(counts[1:])
        for part, (start, stop) in enumerate(zip([0, *stops[:-1]], stops, strict=True), start=1):
            where[members[start:stop]] = part
    return where
