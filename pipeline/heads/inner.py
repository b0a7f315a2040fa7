"""Inner folds of a split's training clips, and how good a head of some settings is on them.

What is chosen before a run (a head, its settings) is chosen by these: neither validation nor test clips
play a part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from pipeline.errors import ConfigError
from pipeline.heads.clips import Clips
from pipeline.heads.config import TrainConfig
from pipeline.heads.epochs import Callbacks, Stop
from pipeline.heads.late import fit_split
from pipeline.heads.measures import cross_entropy, predicted_classes
from pipeline.heads.plan import make_splits, require_streams, resolve
from pipeline.heads.splits import FOLDED, Split, resolve_way
from pipeline.heads.within import folds_within

FOLDS = 3


def inner_splits(clips: Clips, config: TrainConfig, what: str) -> list[Split]:
    """The training clips of a training of these settings, as inner folds by whole groups.

    Each fold's `test` are the clips that it leaves out; it has no validation clips. what: is chosen by
    them, for the messages. Raises `ConfigError` for several folds, for too few clips, and for what the
    training itself would refuse: repeats, or a join of one store.
    """
    if resolve_way(clips.table, config.split) in FOLDED:
        raise ConfigError(
            f"{what} is chosen by the training clips of one split, and split is {config.split}: "
            "choose with another split first, or sweep over the heads"
        )
    require_streams(clips, config)
    (split,) = make_splits(clips, config)
    folds = folds_within(clips.table, split, FOLDS, config.seed)
    if not folds:
        raise ConfigError(
            f"{len(split.train)} training clips are too few to choose {what} by: name one "
            "(--head frame_average)"
        )
    return folds


def scores(
    clips: Clips, config: TrainConfig, folds: Sequence[Split], stop: Stop | None = None
) -> Iterator[tuple[float, float]]:
    """After each fold: (top-1, cross-entropy) on all clips that were left out so far.

    Raises KeyboardInterrupt if it is stopped.
    """
    asked = replace(config, split=resolve_way(clips.table, config.split), test_set="")
    settings = resolve(asked, folds, how=asked.split)
    at, probabilities = [], []
    for fold in folds:
        fitted = fit_split(clips, fold, settings, callbacks=Callbacks(stop=stop))
        if fitted.progress.stopped:
            raise KeyboardInterrupt(
                "stopped while a choice was made: nothing was trained yet",
                fitted.progress.stopped_by,
            )
        at.append(fitted.parts["test"][0])
        probabilities.append(fitted.parts["test"][1])
        labels, shares = clips.labels[np.concatenate(at)], np.concatenate(probabilities)
        yield float((predicted_classes(shares) == labels).mean()), cross_entropy(shares, labels)
