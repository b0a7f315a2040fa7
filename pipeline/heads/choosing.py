"""`--head auto`: the best of a few heads, by inner folds of the training clips alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, SpecMismatch
from pipeline.heads.clips import Clips
from pipeline.heads.config import AUTO, TrainConfig
from pipeline.heads.epochs import Stop
from pipeline.heads.inner import inner_splits, scores
from pipeline.heads.run_folder import read_config

CANDIDATES: tuple[tuple[str, dict[str, str]], ...] = (
    ("pyramid", {}),
    ("frame_average", {}),
    ("gru", {"preset": "few"}),
)
"""(head, options) in the order in which the first of equals is taken."""


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
        record = _compared(clips, config, stop)
    options = dict(record["options"])
    return Chosen(config=replace(config, head=record["head"], options=options), record=record)


def _recorded(resumed: Path | None) -> dict[str, Any]:
    """The choice that a run to be resumed has recorded; empty if it has recorded none."""
    if resumed is None or not (resumed / "config.json").exists():
        return {}
    return dict(read_config(resumed).get("chosen", {}))


def _compared(clips: Clips, config: TrainConfig, stop: Stop | None) -> dict[str, Any]:
    folds = inner_splits(clips, config, "a head")
    config = replace(config, stopping="auto")
    tried = []
    for head, options in CANDIDATES:
        *_, (top1, loss) = scores(clips, replace(config, head=head, options=options), folds, stop)
        tried.append(Tried(head=head, options=options, top1=top1, loss=loss))
    best = max(tried, key=lambda each: (each.top1, -each.loss))
    return {
        "head": best.head,
        "options": best.options,
        "folds": len(folds),
        "clips": sum(len(fold.test) for fold in folds),
        "tried": [each.to_dict() for each in tried],
    }
