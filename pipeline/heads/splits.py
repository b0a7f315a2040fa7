"""Who trains, who decides when to stop, and who tests: pure functions of a table and a seed.

A group (clips cut from one source video) never straddles a split, except where the data's own
split or `stratified` says so.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.errors import ConfigError
from pipeline.heads.grouping import assign_groups
from pipeline.heads.source import Rows, usable

WAYS = ("auto", "given", "grouped", "stratified", "kfold", "leave_one_group_out")
NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
    "testing": "test",
}
"""What the `split` column may say, and which part it means."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Split:
    """Row numbers of the three parts, ascending int64, with how they were chosen."""

    train: Rows
    validation: Rows
    test: Rows
    how: str
    seed: int
    fold: int = 0
    folds: int = 1

    def __repr__(self) -> str:
        return (
            f"Split({self.how}, train={len(self.train)}, validation={len(self.validation)}, "
            f"test={len(self.test)}, seed={self.seed}, fold={self.fold} of {self.folds})"
        )

    def to_dict(self) -> dict[str, Any]:
        """The split as plain JSON values; `from_dict` reads it back."""
        parts = {name: getattr(self, name).tolist() for name in ("train", "validation", "test")}
        return {
            **parts,
            "how": self.how,
            "seed": self.seed,
            "fold": self.fold,
            "folds": self.folds,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Read what `to_dict` wrote."""
        train, validation, test = (
            np.asarray(values[name], dtype=np.int64) for name in ("train", "validation", "test")
        )
        return cls(
            train=train,
            validation=validation,
            test=test,
            how=str(values["how"]),
            seed=int(values["seed"]),
            fold=int(values["fold"]),
            folds=int(values["folds"]),
        )

    def save(self, path: Path) -> None:
        """Write the split as JSON."""
        path.write_text(json.dumps(self.to_dict()) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a split that `save` wrote."""
        return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))


def make_split(
    table: pd.DataFrame,
    *,
    how: str = "auto",
    seed: int = 0,
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    folds: int = 3,
    fold: int = 0,
) -> Split:
    """Split the usable clips of a table (as `SequenceSource.table`) into three parts.

    `auto` is `given` where the `split` column names test clips, else `grouped` where groups are
    known, else `stratified`. For `kfold` and `leave_one_group_out` this is fold number `fold`;
    `make_folds` gives all of them. Equal tables and seeds give equal splits.

    Raises `ConfigError` where there are too few classes, clips or groups for it.
    """
    resolved = resolve_way(table, how)
    if resolved in ("kfold", "leave_one_group_out"):
        every = make_folds(table, how=resolved, seed=seed, fractions=fractions, folds=folds)
        if not 0 <= fold < len(every):
            raise ConfigError(f"fold is {fold}: give a number from 0 to {len(every) - 1}")
        return every[fold]
    clips = _checked(table, fractions)
    if resolved == "given":
        return _given(clips, seed, fractions)
    if resolved == "grouped":
        parts = _by_groups(clips, seed, fractions)
    else:
        parts = _stratified(clips, seed, fractions)
    return _as_split(clips, parts, resolved, seed)


def make_folds(
    table: pd.DataFrame,
    *,
    how: str = "kfold",
    seed: int = 0,
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    folds: int = 3,
) -> list[Split]:
    """Every fold: each clip tests exactly once, always apart from its whole group.

    The validation part of each fold is cut, by whole groups, from what that fold does not test,
    in the proportion of `fractions`. `leave_one_group_out` has as many folds as groups.
    """
    clips = _checked(table, fractions)
    groups = group_names(clips)
    distinct = len(set(groups))
    if how == "leave_one_group_out":
        _, tested_in = np.unique(groups, return_inverse=True)
        folds = distinct
    else:
        if folds < 2 or folds > distinct:
            raise ConfigError(
                f"{folds} folds cannot be made of {distinct} groups: ask for 2 to {distinct}"
            )
        tested_in = assign_groups(groups, _labels(clips), np.full(folds, 1 / folds), seed)
    if distinct < 3:
        raise ConfigError(
            f"{how} needs at least 3 groups (train, validation, test), these clips have "
            f"{distinct}: use split=stratified or add source videos"
        )
    share = fractions[1] / (fractions[0] + fractions[1])
    return [_fold(clips, groups, tested_in, f, folds, share, how, seed) for f in range(folds)]


def resolve_way(table: pd.DataFrame, how: str) -> str:
    """The way to split that `how` means for this table; `auto` becomes a definite one."""
    if how not in WAYS:
        raise ConfigError(f"split {how!r} is not known: use {', '.join(WAYS)}")
    if how != "auto":
        return how
    clips = usable(table)
    given = clips["split"].astype(str).str.lower().map(NAMES)
    if (given == "test").any() and (given == "train").any():
        return "given"
    known = clips["group"].astype(str)
    return "grouped" if known.ne("").all() and known.nunique() >= 3 else "stratified"


def group_names(clips: pd.DataFrame) -> npt.NDArray[np.str_]:
    """Each clip's group; a clip without one is a group of its own."""
    group = clips["group"].astype(str).to_numpy(dtype=str)
    alone = "clip:" + clips["video_id"].astype(str)
    return np.where(group == "", alone.to_numpy(dtype=str), group)


def _checked(table: pd.DataFrame, fractions: Sequence[float]) -> pd.DataFrame:
    if len(fractions) != 3 or min(fractions) < 0 or fractions[0] <= 0 or sum(fractions) <= 0:
        raise ConfigError(
            f"fractions are {tuple(fractions)}: give three shares for train, validation and test"
        )
    clips = usable(table).sort_index()
    classes = sorted(set(clips["label"].astype(str)))
    if len(classes) < 2:
        raise ConfigError(
            f"the {len(clips)} usable clips have {len(classes)} class"
            f"{'' if len(classes) == 1 else 'es'}: a head needs at least two"
        )
    return clips


def _labels(clips: pd.DataFrame) -> Rows:
    _, labels = np.unique(clips["label"].astype(str).to_numpy(dtype=str), return_inverse=True)
    return labels.astype(np.int64)


def _given(clips: pd.DataFrame, seed: int, fractions: Sequence[float]) -> Split:
    part = clips["split"].astype(str).str.lower().map(NAMES)
    missing = [name for name in ("train", "test") if not (part == name).any()]
    if missing:
        raise ConfigError(
            f"the data's own split has no {' and no '.join(missing)} clips: "
            "use split=grouped or split=stratified"
        )
    numbers = {"train": 0, "validation": 1, "test": 2}
    where: Rows = np.fromiter((numbers.get(str(p), -1) for p in part), np.int64, len(part))
    if not (where == 1).any():
        # No validation part is given: cut one from the training clips, never from the test.
        training = clips[where == 0]
        share = fractions[1] / (fractions[0] + fractions[1])
        where[where == 0] = _train_or_validation(training, share, seed)
    return _as_split(clips, where, "given", seed)


def _train_or_validation(training: pd.DataFrame, share: float, seed: int) -> Rows:
    """0 (train) or 1 (validation) for each clip, by whole groups where there are enough."""
    groups = group_names(training)
    _, sizes = np.unique(groups, return_counts=True)
    if len(sizes) >= 4 and sizes.max() <= len(training) / 2:
        return assign_groups(groups, _labels(training), np.array([1 - share, share]), seed)
    return _stratified(training, seed, (1 - share, share))


def _by_groups(clips: pd.DataFrame, seed: int, fractions: Sequence[float]) -> Rows:
    groups = group_names(clips)
    distinct = len(set(groups))
    wanted = sum(f > 0 for f in fractions)
    if distinct < wanted:
        raise ConfigError(
            f"{wanted} parts need at least {wanted} groups, these clips have {distinct}: "
            "use split=stratified or add source videos"
        )
    return assign_groups(groups, _labels(clips), np.asarray(fractions, dtype=float), seed)


def _stratified(clips: pd.DataFrame, seed: int, fractions: Sequence[float]) -> Rows:
    """Each class cut in the same proportions; the first part takes what rounding leaves."""
    rng = np.random.default_rng(seed)
    labels, where = _labels(clips), np.zeros(len(clips), dtype=np.int64)
    shares = np.asarray(fractions, dtype=float) / sum(fractions)
    for label in range(labels.max() + 1):
        members = rng.permutation(np.flatnonzero(labels == label))
        counts = np.floor(shares * len(members) + 0.5).astype(int)
        counts[1:] = np.where(shares[1:] > 0, np.maximum(counts[1:], 1), 0)
        while counts[1:].sum() > max(len(members) - 1, 0):
            counts[1 + int(np.argmax(counts[1:]))] -= 1
        stops = np.cumsum(counts[1:])
        for part, (start, stop) in enumerate(zip([0, *stops[:-1]], stops, strict=True), start=1):
            where[members[start:stop]] = part
    return where


def _fold(
    clips: pd.DataFrame,
    groups: npt.NDArray[np.str_],
    tested_in: Rows,
    fold: int,
    folds: int,
    share: float,
    how: str,
    seed: int,
) -> Split:
    where = np.full(len(clips), 2, dtype=np.int64)
    rest = tested_in != fold
    parts = np.array([1 - share, share])
    where[rest] = assign_groups(groups[rest], _labels(clips)[rest], parts, seed + fold)
    return _as_split(clips, where, how, seed, fold=fold, folds=folds)


def _as_split(
    clips: pd.DataFrame, where: Rows, how: str, seed: int, *, fold: int = 0, folds: int = 1
) -> Split:
    rows = clips.index.to_numpy(dtype=np.int64)
    parts = [rows[where == part] for part in range(3)]
    for name, part in zip(("train", "validation", "test"), parts, strict=True):
        if not len(part):
            raise ConfigError(
                f"the {how} split of {len(rows)} clips leaves no clip for {name}: "
                "add clips or choose another split"
            )
    absent = sorted(set(clips["label"].astype(str)) - set(clips.loc[parts[0], "label"].astype(str)))
    if absent:
        raise ConfigError(
            f"the {how} split leaves no training clip of {absent[0]}: "
            "its clips share too few groups; add some or use split=stratified"
        )
    return Split(
        train=parts[0],
        validation=parts[1],
        test=parts[2],
        how=how,
        seed=seed,
        fold=fold,
        folds=folds,
    )
