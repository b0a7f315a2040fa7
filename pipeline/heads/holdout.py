"""Named test sets: clips that a store keeps apart for good, so that no training sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd

from pipeline.errors import ConfigError
from pipeline.heads.source import Mask, Names, contents, digest_keys, group_names, texts
from pipeline.heads.spans import overlapping

Marks = Mask
"""(clips,) bool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdout:
    """One named test set: which clips test, and what else stays out of training with them.

    `groups` are theirs, `contents` what their bytes are known by (`source.contents`): a clip of one
    of these groups or bytes, whenever it comes, is never trained on. `whole_groups` is false where
    groups were on both sides as the user asked for (a stratified split, a given one): then only
    the clips themselves and equal bytes stay out.
    """

    name: str
    video_ids: frozenset[str]
    groups: frozenset[str]
    contents: frozenset[str]
    whole_groups: bool = True

    def __repr__(self) -> str:
        return f"Holdout({self.name}, clips={len(self.video_ids)}, groups={len(self.groups)})"

    def to_dict(self) -> dict[str, Any]:
        """The set as plain JSON values; `from_dict` reads it back."""
        parts = ("video_ids", "groups", "contents")
        sets = {name: sorted(getattr(self, name)) for name in parts}
        return {**sets, "whole_groups": self.whole_groups}

    @classmethod
    def from_dict(cls, name: str, values: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote; raises `ConfigError` if it is something else."""
        try:
            ids, groups, known = (
                frozenset(map(str, values[part])) for part in ("video_ids", "groups", "contents")
            )
            whole = bool(values["whole_groups"])
        except (KeyError, TypeError):
            raise ConfigError(
                f"the test set {name} of this store cannot be read: a newer version of pixels-once "
                "wrote it, or it is damaged"
            ) from None
        return cls(name=name, video_ids=ids, groups=groups, contents=known, whole_groups=whole)

    @classmethod
    def of(cls, name: str, clips: pd.DataFrame, *, whole_groups: bool = True) -> Self:
        """The set of these clips (rows of a store's table)."""
        return cls(
            name=name,
            video_ids=frozenset(clips["video_id"].astype(str)),
            groups=frozenset(clips["group"].astype(str)) - {""},
            contents=frozenset(contents(clips)) - {""},
            whole_groups=whole_groups,
        )

    def tested(self, clips: pd.DataFrame) -> Marks:
        """Which of these clips are in the set."""
        return _among(texts(clips, "video_id"), self.video_ids)

    def kept_out(self, clips: pd.DataFrame) -> Marks:
        """Which of these clips may not be trained on: the set's, and those of its groups and bytes."""
        known = contents(clips)
        out = self.tested(clips) | _among(known, self.contents)
        if any("#" in key for key in (*known, *self.contents)):  # parts of files
            out |= overlapping(known, self.contents)
        out |= _among(digest_keys(clips), self.contents)
        if self.whole_groups:
            out |= _among(texts(clips, "group"), self.groups)
            # Groups that share bytes are one group.
            joined = group_names(clips)
            out |= _among(joined, set(joined[out]))
        return out


def holdouts_of(source: Any) -> tuple[Holdout, ...]:
    """The named test sets of a source; none where it knows of none."""
    test_sets: Mapping[str, Any] = getattr(source, "test_sets", None) or {}
    return tuple(Holdout.from_dict(name, values) for name, values in sorted(test_sets.items()))


def named(holdouts: Sequence[Holdout], name: str) -> Holdout:
    """The set of this name; raises `ConfigError` if there is none."""
    for holdout in holdouts:
        if holdout.name == name:
            return holdout
    have = ", ".join(holdout.name for holdout in holdouts) or "none"
    raise ConfigError(
        f"the store has no test set {name!r} (it has {have}): make one with "
        "`pixels-once freeze --store STORE --name NAME`"
    )


def kept_out(holdouts: Sequence[Holdout], clips: pd.DataFrame) -> Marks:
    """Which of these clips no training may see, for any of the sets."""
    out = np.zeros(len(clips), dtype=bool)
    for holdout in holdouts:
        out |= holdout.kept_out(clips)
    return out


def _among(values: Names, known: AbstractSet[str]) -> Marks:
    return pd.Series(values, dtype=object).isin(known).to_numpy(dtype=bool)
