"""`--head auto`: the best of a few heads, by inner folds of the training clips alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import ConfigError, SpecMismatch
from pipeline.heads import cuts
from pipeline.heads.clips import Clips
from pipeline.heads.config import TrainConfig
from pipeline.heads.epochs import Callbacks, Stop
from pipeline.heads.late import fit_split
from pipeline.heads.measures import cross_entropy, predicted_classes
from pipeline.heads.plan import resolve
from pipeline.heads.run_folder import read_config
from pipeline.heads.splits import FOLDED, Split, make_split

AUTO = "auto"
CANDIDATES: tuple[tuple[str, dict[str, str]], ...] = (
    ("pyramid", {}),
    ("frame_average", {}),
    ("gru", {"preset": "regularised"}),
)
"""(head, options) in the order in which the first of equals is taken."""
FOLDS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A candidate and its figures on the training clips, each predicted by a head without its fold."""

    head: str
    options: dict[str, str]
    top1: float
    loss: float

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {name: getattr(self, name) for name in ("head", "options", "top1", "loss")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The settings with the head that was chosen, and what `config.json` records of the choice."""

    config: TrainConfig
    record: dict[str, Any]


def chosen_head(
    clips: Clips, config: TrainConfig, resumed: Path | None = None, stop: Stop | None = None
) -> Chosen:
    """The settings with a head of the zoo in place of `auto`; others are returned as they are.

    Every candidate is fitted on all inner folds but one of the training clips and predicts that one; the
    best top-1 over all of them is taken, of equals the lower loss. Test and validation clips play
    no part. A run that is resumed keeps its choice.

    Raises `ConfigError` for options (which belong to one head), for several folds and for too few
    clips, `SpecMismatch` for clips of pixels.
    """
    if config.head != AUTO:
        return Chosen(config=config, record={})
    if config.options:
        raise ConfigError(
            f"options are given ({', '.join(config.options)}), and head=auto chooses a head with its "
            "own: leave them out, or name the head"
        )
    if len(clips.shape) == 3:
        raise SpecMismatch("head=auto chooses among heads of features, and this store holds frames")
    record = _recorded(resumed)
    if not record:
        if config.split in FOLDED:
            raise ConfigError(
                f"head=auto chooses by the training clips of one split, and split is {config.split}: "
                "choose with another split first, or sweep over the heads"
            )
        record = _compared(clips, config, stop)
    options = dict(record["options"])
    return Chosen(config=replace(config, head=record["head"], options=options), record=record)


def _recorded(resumed: Path | None) -> dict[str, Any]:
    """The choice that a run to be resumed has recorded; empty if it has recorded none."""
    if resumed is None or not (resumed / "config.json").exists():
        return {}
    return dict(read_config(resumed).get("chosen", {}))


def _compared(clips: Clips, config: TrainConfig, stop: Stop | None) -> dict[str, Any]:
    split = make_split(
        clips.table,
        how=config.split,
        seed=config.seed,
        fractions=config.fractions,
        holdouts=clips.holdouts,
        test_set=config.test_set,
    )
    parts = cuts.inner_folds(clips.table.loc[split.train], FOLDS, config.seed)
    if not parts.any():
        raise ConfigError(
            f"{len(split.train)} training clips are too few to choose a head by: name one "
            "(--head frame_average)"
        )
    count = int(parts.max()) + 1
    folds = [
        Split(
            train=split.train[parts != part],
            validation=split.train[:0],
            test=split.train[parts == part],
            how="inner",
            seed=config.seed,
            fold=part,
            folds=count,
        )
        for part in range(count)
    ]
    config = replace(config, split=split.how, stopping="auto", test_set="")
    tried = [_tried(clips, config, head, options, folds, stop) for head, options in CANDIDATES]
    best = max(tried, key=lambda each: (each.top1, -each.loss))
    return {
        "head": best.head,
        "options": best.options,
        "folds": count,
        "clips": len(split.train),
        "tried": [each.to_dict() for each in tried],
    }


def _tried(
    clips: Clips,
    config: TrainConfig,
    head: str,
    options: dict[str, str],
    folds: Sequence[Split],
    stop: Stop | None,
) -> Tried:
    asked = replace(config, head=head, options=options)
    settings = resolve(asked, folds, how=config.split)
    at, probabilities = [], []
    for fold in folds:
        fitted = fit_split(clips, fold, settings, callbacks=Callbacks(stop=stop))
        if fitted.progress.stopped:
            raise KeyboardInterrupt(
                "stopped while a head was chosen: nothing was trained yet",
                fitted.progress.stopped_by,
            )
        at.append(fitted.parts["test"][0])
        probabilities.append(fitted.parts["test"][1])
    labels, shares = clips.labels[np.concatenate(at)], np.concatenate(probabilities)
    return Tried(
        head=head,
        options=options,
        top1=float((predicted_classes(shares) == labels).mean()),
        loss=cross_entropy(shares, labels),
    )
