"""The training clips of a split as splits of their own: what is chosen by them sees no other clip."""

from __future__ import annotations

import pandas as pd

from pipeline.heads import cuts
from pipeline.heads.splits import Split


def folds_within(table: pd.DataFrame, split: Split, folds: int, seed: int) -> list[Split]:
    """A split for each inner fold (`cuts.inner_folds`) of the training clips: it leaves out its `test`.

    It has no validation clips. Empty where there are too few clips for folds.
    """
    parts = cuts.inner_folds(table.loc[split.train], folds, seed)
    if not parts.any():
        return []
    count = int(parts.max()) + 1
    return [
        Split(
            train=split.train[parts != part],
            validation=split.train[:0],
            test=split.train[parts == part],
            how="inner",
            seed=seed,
            fold=part,
            folds=count,
        )
        for part in range(count)
    ]
