"""A split with fewer of its training groups: for a learning curve, whose test clips stay the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from pipeline.heads.seeds import derived_seed
from pipeline.heads.source import Names, group_names, texts
from pipeline.heads.splits import Split


def with_share(table: pd.DataFrame, split: Split, share: float) -> Split:
    """The split with this share of the groups of its training and of its validation clips.

    Smaller shares are parts of larger ones. At least one group, and as many as it takes to have every
    class of the training clips. They are chosen by the split's seed and fold.
    """
    if share >= 1:
        return split
    parts = {}
    for part in ("train", "validation"):
        rows = getattr(split, part)
        clips = table.loc[rows]
        seed = derived_seed(split.seed, "train groups", part, f"fold {split.fold}")
        least = part == "train"
        kept = _kept(group_names(clips), texts(clips, "label"), share, seed, cover=least)
        parts[part] = rows[np.isin(group_names(clips), kept)]
    return replace(split, **parts)


def _kept(groups: Names, labels: Names, share: float, seed: int, *, cover: bool) -> list[str]:
    """A share of the groups in a random order, in which those that bring a new class come first."""
    names = sorted(set(groups))
    order = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    first: list[str] = []
    known: set[str] = set()
    for name in order if cover else ():
        own = set(labels[groups == name])
        if own - known:
            first.append(name)
            known |= own
    rest = [name for name in order if name not in set(first)]
    count = max(1, len(first), round(share * len(names)))
    return [*first, *rest][:count]
