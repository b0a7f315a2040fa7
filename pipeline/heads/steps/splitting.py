"""Which annotated files train, stop and test: a file is one unit, and never on two sides."""

from __future__ import annotations

import numpy as np
import pandas as pd

from pipeline.errors import ConfigError
from pipeline.heads import cuts
from pipeline.heads.config import TrainConfig
from pipeline.heads.source import Rows, group_names
from pipeline.heads.splits import FOLDED, PARTS, Split
from pipeline.heads.steps.annotations import BACKGROUND
from pipeline.heads.steps.videos import StepClips

LEAST = 3
"""Files or groups for training, validation and test."""


def split_videos(clips: StepClips, config: TrainConfig) -> tuple[Split, ...]:
    """Train, validation and test files, balanced by their annotated segments; of each fold, where asked.

    `auto` is `given` if the store's split column names training and test files, else `grouped`;
    `stratified` takes every file for a group of its own. Equal annotations and seeds give equal splits.

    Raises `ConfigError` for too few files or groups, and a file whose rows are of several given parts.
    """
    if config.split in FOLDED:
        return _folds(clips, config)
    files = clips.table
    how = _way(files, config.split)
    share = config.fractions[1] / (config.fractions[0] + config.fractions[1])
    if how == "given":
        where = _given(clips, config.seed, share)
    else:
        own = how == "stratified"
        where = _cut(clips, np.arange(len(clips)), tuple(config.fractions), config.seed, alone=own)
    split = Split(
        **{name: clips.rows[where == part] for part, name in enumerate(PARTS)},
        how=how,
        seed=config.seed,
    )
    for name in PARTS:
        if not len(getattr(split, name)):
            raise ConfigError(
                f"the {how} split of {len(clips)} annotated videos leaves none for {name}: annotate "
                "more, or choose another split"
            )
    return (split,)


def _folds(clips: StepClips, config: TrainConfig) -> tuple[Split, ...]:
    """Every file tests once, apart from its whole group; a share of the others decides when to stop."""
    every = np.arange(len(clips))
    alone, names = pd.factorize(group_names(clips.table), sort=True)
    tested, folds = alone.astype(np.int64), len(names)
    if config.split == "kfold":
        folds = config.folds
        tested = _cut(clips, every, (1 / folds,) * folds, config.seed)
    if len(names) < LEAST:
        raise ConfigError(
            f"{config.split} needs at least {LEAST} groups (train, validation, test), the annotated "
            f"videos have {len(names)}: annotate more"
        )
    share = config.fractions[1] / (config.fractions[0] + config.fractions[1])
    splits = []
    for fold in range(folds):
        rest = every[tested != fold]
        held = _cut(clips, rest, (1 - share, share), config.seed + fold)
        parts = (rest[held == 0], rest[held == 1], every[tested == fold])
        rows = {name: clips.rows[at] for name, at in zip(PARTS, parts, strict=True)}
        splits.append(Split(**rows, how=config.split, seed=config.seed, fold=fold, folds=folds))
    return tuple(splits)


def untrained(clips: StepClips, split: Split) -> list[str]:
    """A sentence for labels of which no training file has a step."""
    seen = np.zeros(len(clips.classes), dtype=bool)
    for i in clips.positions(split.train):
        seen |= clips.videos[i].targets.any(axis=0)
    lost = [name for name, known in zip(clips.classes, seen, strict=True) if not known]
    if not lost:
        return []
    return [f"no training video has {', '.join(lost)}: the head cannot learn what it never sees"]


def _way(files: pd.DataFrame, asked: str) -> str:
    if asked != "auto":
        return asked
    known = set(cuts.given_parts(_single(files)))
    return "given" if {"train", "test"} <= known else "grouped"


def _single(files: pd.DataFrame) -> pd.DataFrame:
    """The files; raises `ConfigError` for one whose rows the data puts into several parts."""
    torn = files[files["split"].str.contains(",", regex=False)]
    if len(torn):
        name, parts = torn["video_id"].iloc[0], torn["split"].iloc[0]
        raise ConfigError(
            f"the split column puts the rows of {name} into {parts.replace(',', ' and ')}: a file is "
            "never torn apart, give all its rows one part"
        )
    return files


def _given(clips: StepClips, seed: int, share: float) -> Rows:
    """0 (train), 1 (validation), 2 (test) or −1 for each file, by the `split` column."""
    parts = cuts.given_parts(_single(clips.table))
    missing = [name for name in ("train", "test") if name not in parts]
    if missing:
        raise ConfigError(
            f"the data's own split has no {' and no '.join(missing)} videos: use split=grouped"
        )
    where = np.array([PARTS.index(part) if part else -1 for part in parts], dtype=np.int64)
    if not (where == 1).any():
        train = np.flatnonzero(where == 0)
        where[train] = _cut(clips, train, (1 - share, share), seed)
    return where


def _cut(
    clips: StepClips, at: Rows, shares: tuple[float, ...], seed: int, *, alone: bool = False
) -> Rows:
    """The part of each of the files at these positions, by whole groups, balanced by segments.

    alone: every file is a group of its own
    """
    files = clips.table.iloc[at]
    groups = files["video_id"].to_numpy(dtype=object) if alone else group_names(files)
    parts = sum(share > 0 for share in shares)
    if len(set(groups)) < parts:
        what = "videos" if alone else "groups"
        raise ConfigError(
            f"{parts} parts need at least {parts} {what}, the annotated videos have "
            f"{len(set(groups))}: annotate more"
        )
    lines = [
        (place, label)
        for place, i in enumerate(at)
        for label in ([span.label for span in clips.videos[i].spans] or [BACKGROUND])
    ]
    of = np.array([place for place, _ in lines])
    _, labels = np.unique([label for _, label in lines], return_inverse=True)
    wanted = np.asarray(shares, dtype=float)
    assigned = cuts.assign_groups(groups[of], labels.astype(np.int64), wanted, seed)
    first = np.unique(of, return_index=True)[1]
    return np.asarray(assigned[first], dtype=np.int64)
