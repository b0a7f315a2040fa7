"""Who trains, who decides when to stop, and who tests: pure functions of a table and a seed.

A group (clips cut from one source video) never straddles a split, except where the data's own
split or `stratified` does; clips of equal bytes never do (`pipeline.heads.leakage` checks both).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.errors import ConfigError
from pipeline.heads import cuts
from pipeline.heads.config import DEFAULTS, FRACTIONS, SPLITS
from pipeline.heads.holdout import Holdout, kept_out, named
from pipeline.heads.source import Rows, group_names, normalised, usable
from pipeline.heads.spans import fragments, whole_files

GROUPED = ("grouped", "kfold", "leave_one_group_out")
"""Ways to split that keep groups whole."""
FOLDED = ("kfold", "leave_one_group_out")
"""Ways to split that make several folds."""
PARTS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Split:
    """Row numbers of the three parts, ascending int64, with how they were chosen.

    `test_set` names the store's test set that `test` is; empty where it was cut by `how` too. With
    repeated folds `folds` counts those of all repeats, and `seed` is that of the repeat.
    """

    train: Rows
    validation: Rows
    test: Rows
    how: str
    seed: int
    fold: int = 0
    folds: int = 1
    test_set: str = ""
    repeat: int = 0

    def __repr__(self) -> str:
        return (
            f"Split({self.how}, train={len(self.train)}, validation={len(self.validation)}, "
            f"test={len(self.test)}, seed={self.seed}, fold={self.fold} of {self.folds})"
        )


def make_split(
    table: pd.DataFrame,
    *,
    how: str = "auto",
    seed: int = 0,
    fractions: Sequence[float] = FRACTIONS,
    holdouts: Sequence[Holdout] = (),
    test_set: str = "",
) -> Split:
    """Split the usable clips of a table (as `SequenceSource.table`) into three parts.

    `auto` is `given` if the `split` column names test clips, else `grouped` if groups are known, else
    `stratified`; `kfold` and `leave_one_group_out` are made by `make_folds`. Clips that one of the
    `holdouts` keeps out take no part, except those of the one named `test_set`, which are the test.
    Equal tables and seeds give equal splits.

    Raises `ConfigError` if there are too few classes, clips or groups for it.
    """
    resolved = resolve_way(table, how)
    clips = _checked(table, fractions)
    tested = rows_of_test_set(clips, holdouts, test_set)
    free = clips[~kept_out(holdouts, clips)]
    share = fractions[1] / (fractions[0] + fractions[1])
    if resolved == "given":
        where = cuts.given_split(free, seed, share, test=not test_set)
    else:
        shares = (1 - share, share) if test_set else tuple(fractions)
        parts, groups = sum(part > 0 for part in shares), len(set(group_names(free)))
        if resolved == "grouped" and groups < parts:
            raise ConfigError(
                f"{parts} parts need at least {parts} groups, these clips have {groups}: "
                "use split=stratified or add source videos"
            )
        cut = cuts.by_groups if resolved == "grouped" else cuts.stratified
        where = cut(free, shares, seed)
    rows = free.index.to_numpy(dtype=np.int64)
    split = Split(
        train=rows[where == 0],
        validation=rows[where == 1],
        test=tested if test_set else rows[where == 2],
        how=resolved,
        seed=seed,
        test_set=test_set,
    )
    return _as_split(clips, split)


def make_folds(
    table: pd.DataFrame,
    *,
    how: str = "kfold",
    seed: int = 0,
    fractions: Sequence[float] = FRACTIONS,
    folds: int = DEFAULTS.folds,
    repeats: int = DEFAULTS.repeats,
    holdouts: Sequence[Holdout] = (),
) -> list[Split]:
    """Every fold of every repeat: each clip tests once a repeat, always apart from its whole group.

    The validation part of each fold is cut, by whole groups, from what that fold does not test,
    in the proportion of `fractions`. `leave_one_group_out` has as many folds as groups, and one
    repeat. Clips that one of the `holdouts` keeps out are in no fold.
    """
    clips = _checked(table, fractions)
    clips = clips[~kept_out(holdouts, clips)]
    alone, names = pd.factorize(group_names(clips), sort=True)
    if how == "leave_one_group_out":
        folds, cut = len(names), [(seed, alone.astype(np.int64))]
    elif folds < 2 or folds > len(names):
        raise ConfigError(
            f"{folds} folds cannot be made of {len(names)} groups: ask for 2 to {len(names)}"
        )
    else:
        cut = cuts.repeated_folds(clips, folds, seed, repeats)
    if len(names) < 3:
        raise ConfigError(
            f"{how} needs at least 3 groups (train, validation, test), these clips have "
            f"{len(names)}: use split=stratified or add source videos"
        )
    share = fractions[1] / (fractions[0] + fractions[1])
    rows = clips.index.to_numpy(dtype=np.int64)
    splits = []
    for repeat, (own, tested_in) in enumerate(cut):
        for fold in range(folds):
            where = np.full(len(clips), 2, dtype=np.int64)
            rest = tested_in != fold
            where[rest] = cuts.by_groups(clips[rest], (1 - share, share), own + fold)
            split = Split(
                **{name: rows[where == part] for part, name in enumerate(PARTS)},
                how=how,
                seed=own,
                fold=repeat * folds + fold,
                folds=len(cut) * folds,
                repeat=repeat,
            )
            splits.append(_as_split(clips, split))
    return splits


def resolve_way(table: pd.DataFrame, how: str) -> str:
    """The way to split that `how` means for this table; `auto` becomes a definite one.

    A clip without a group is a group of its own, so `auto` is `grouped` as soon as groups are
    known. Raises `ConfigError` for a way that is not known, and for a `split` column that names
    parts and something else beside them.
    """
    if how not in SPLITS:
        raise ConfigError(f"split {how!r} is not known: use {', '.join(SPLITS)}")
    if how != "auto":
        return how
    clips = usable(normalised(table))
    if {"train", "test"} <= set(cuts.given_parts(clips)):
        return "given"
    known = clips["group"].ne("")
    return "grouped" if known.any() and len(set(group_names(clips))) >= 3 else "stratified"


def rows_of_test_set(clips: pd.DataFrame, holdouts: Sequence[Holdout], test_set: str) -> Rows:
    """The rows of the clips in the test set of this name, ascending; none for an empty name.

    Raises `ConfigError` if there is no such set, or none of its clips can be used.
    """
    if not test_set:
        return np.zeros(0, dtype=np.int64)
    holdout = named(holdouts, test_set)
    rows = clips.index.to_numpy(dtype=np.int64)[holdout.tested(clips)]
    if not len(rows):
        raise ConfigError(
            f"none of the {len(holdout.video_ids)} clips of the test set {test_set} can be used: "
            "bring them back, or make another set with `pixels-once freeze`"
        )
    return np.sort(rows)


def split_notes(
    table: pd.DataFrame, how: str, holdouts: Sequence[Holdout] = (), test_set: str = ""
) -> list[str]:
    """Notes for the user on this way to split these clips, a sentence each."""
    clips = usable(normalised(table))
    notes = []
    alone = int(clips["group"].eq("").sum())
    resolved = resolve_way(table, how)
    if resolved in GROUPED and 0 < alone < len(clips):
        notes.append(
            f"{alone} of {len(clips)} clips have no group: each counts as a group of its own"
        )
    if resolved == "stratified" and (torn := _files_of_parts(clips)):
        notes.append(
            f"{torn} files have several clips, and a stratified split puts clips of one file on both "
            "sides: its figures say little about new files; add files, for at least 3 groups"
        )
    if resolved == "given":
        if missing := cuts.given_parts(clips).count(""):
            notes.append(
                f"{missing} of {len(clips)} clips have no split: they are neither trained on nor "
                "tested"
            )
    elif clips["split"].astype(str).str.strip().ne("").any():
        notes.append(f"the split column of these clips is not used: split is {resolved}")
    if out := int(kept_out(holdouts, clips).sum()):
        names = ", ".join(holdout.name for holdout in holdouts)
        notes.append(
            f"{out} clips stay out of the training for the test sets of the store: {names}"
        )
    if test_set:
        wanted = len(named(holdouts, test_set).video_ids)
        there = len(rows_of_test_set(clips, holdouts, test_set))
        if there < wanted:
            notes.append(f"{wanted - there} of {wanted} clips of {test_set} cannot be used now")
    return notes


def _files_of_parts(clips: pd.DataFrame) -> int:
    """How many files have several clips that are parts of them."""
    parted = whole_files(clips)[fragments(clips) != ""]
    return int((pd.Series(parted, dtype=object).value_counts() > 1).sum())


def _checked(table: pd.DataFrame, fractions: Sequence[float]) -> pd.DataFrame:
    if len(fractions) != 3 or min(fractions) < 0 or fractions[0] <= 0 or sum(fractions) <= 0:
        raise ConfigError(
            f"fractions are {tuple(fractions)}: give three shares for train, validation and test"
        )
    clips = usable(normalised(table)).sort_index()
    if (classes := clips["label"].nunique()) < 2:
        raise ConfigError(
            f"the {len(clips)} usable clips have {classes} class{'es' * (classes != 1)}: "
            "a head needs at least two"
        )
    return clips


def _as_split(clips: pd.DataFrame, split: Split) -> Split:
    """The split; raises `ConfigError` if a part has no clips, or a tested class is not trained on."""
    labels = clips["label"].astype(str)
    classes = {name: set(labels[clips.index.isin(getattr(split, name))]) for name in PARTS}
    for name in PARTS:
        if not classes[name]:
            raise ConfigError(
                f"the {split.how} split of {len(clips)} clips leaves no clip for {name}: "
                "add clips or choose another split"
            )
    for name in ("test", "validation"):
        if absent := classes[name] - classes["train"]:
            label = min(absent)
            raise ConfigError(_untrained(split, name, label, clips[labels == label]))
    return split


def _untrained(split: Split, part: str, label: str, clips: pd.DataFrame) -> str:
    """Why no clip of a class is trained on, and what to do about it."""
    if split.test_set and part == "test":
        return (
            f"{label} is in the test set {split.test_set} only: add training clips of {label}, of "
            "other groups"
        )
    whose = "data's own" if split.how == "given" else split.how
    fact = f"the {whose} split has {label} in its {part} clips only"
    if split.how == "given":
        return f"{fact}: give it training clips, or take its clips out"
    if split.how == "stratified":
        return f"{fact}, it has {len(clips)}: add clips of {label}"
    groups = len(set(group_names(clips)))
    return (
        f"{fact}: its {len(clips)} clips are of {groups} group{'s' * (groups != 1)}; add some of "
        "other groups, or use split=stratified"
    )
