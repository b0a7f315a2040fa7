"""Which clips a store sets apart as a test set: given by the data, cut by groups, or named."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd

from pipeline.errors import ConfigError
from pipeline.heads import cuts
from pipeline.heads.clips import Clips
from pipeline.heads.holdout import Holdout, Marks, kept_out
from pipeline.heads.source import group_names
from pipeline.heads.splits import resolve_way


def cut_holdout(
    clips: Clips, name: str, *, how: str = "auto", fraction: float = 0.15, seed: int = 0
) -> Holdout:
    """A test set cut from what no other keeps out, the way that a split cuts its test.

    `given` takes the data's own test clips, `stratified` a share of every class, every other way
    whole groups. Raises `ConfigError` where nothing, or a class without any clip, would be left to
    train on.
    """
    if not 0 < fraction < 1:
        raise ConfigError(f"fraction is {fraction}: give a share of the clips between 0 and 1")
    free = clips.table[~kept_out(clips.holdouts, clips.table)]
    if free.empty:
        raise ConfigError(
            f"no clip can be set apart as {name}: none is ready, labelled and free of other test sets"
        )
    resolved = resolve_way(free, how)
    if resolved == "given":
        tested = np.array([part == "test" for part in cuts.given_parts(free)], dtype=bool)
    elif resolved == "stratified":
        tested = cuts.stratified(free, (1 - fraction, fraction), seed) == 1
    else:
        tested = cuts.by_groups(free, (1 - fraction, fraction), seed) == 1
    groups = group_names(free)
    # Groups on both sides were asked for here: the data's split, or a stratified one.
    apart = not set(groups[tested]) & set(groups[~tested])
    return _holdout(name, free, tested, whole_groups=apart)


def holdout_of_ids(
    clips: Clips, name: str, video_ids: Collection[str], *, whole_groups: bool = True
) -> Holdout:
    """A test set of the clips with these ids; ids that cannot be used are passed over.

    With `whole_groups` the rest of their groups stays out of training too, unless a class would
    have no clip left to train on.
    """
    tested = clips.table["video_id"].astype(str).isin(list(video_ids)).to_numpy(dtype=bool)
    return _holdout(name, clips.table, tested, whole_groups=whole_groups)


def _holdout(name: str, clips: pd.DataFrame, tested: Marks, *, whole_groups: bool) -> Holdout:
    """The set, if every class of it has clips left to train on."""
    if not tested.any():
        raise ConfigError(f"the test set {name} would have no clip: name some, or add clips")
    holdout = Holdout.of(name, clips[tested], whole_groups=whole_groups)
    if whole_groups and _lacking(clips, holdout):
        holdout = Holdout.of(name, clips[tested], whole_groups=False)
    lacking = _lacking(clips, holdout)
    if lacking:
        raise ConfigError(
            f"the test set {name} would leave no clip of {lacking[0]} to train on: add clips of "
            "other groups, or name other clips"
        )
    return holdout


def _lacking(clips: pd.DataFrame, holdout: Holdout) -> list[str]:
    """Classes of the set that would have no training clip beside it."""
    left = clips[~holdout.kept_out(clips)]
    tested = clips[holdout.tested(clips)]
    return sorted(set(tested["label"]) - set(left["label"]))
