"""Settings with every 0 and `auto` replaced by what a training really uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pipeline import engine
from pipeline.heads.config import TrainConfig
from pipeline.heads.splits import Split
from pipeline.heads.zoo import head_kind

WIDE = 512
"""From this recurrent width on, bfloat16 products and larger batches pay on a CPU."""


def resolve(config: TrainConfig, splits: Sequence[Split], *, how: str = "") -> TrainConfig:
    """The settings as used on this machine for these splits: lr, batch, precision, split, folds.

    how: the way to split, if it is not that of `splits`: a resumed run may be asked for another.

    The folds of a cross-validation and the last fit on all clips share one batch, that of the
    smallest fold: their mean is a figure of one setting.
    """
    kind = head_kind(config.head)
    wide = is_wide(kind.configure(config.options))
    clips = min(len(split.train) for split in splits)
    how = how or splits[0].how
    return replace(
        config,
        lr=config.lr or kind.lr,
        train_batch=config.train_batch or auto_batch(clips, wide),
        precision=head_policy(config.precision, wide).removeprefix("mixed_"),
        split=how,
        folds=config.folds if how == "kfold" else len(splits),
    )


def is_wide(head: Any) -> bool:
    """Whether a head's config asks for a recurrence so wide that it trains in another way."""
    return bool(getattr(head, "units", 0) >= WIDE)


def head_policy(precision: str, wide: bool) -> str:
    """The Keras dtype policy of a head: `auto` is bfloat16 for wide ones where it is in hardware.

    float16 would need loss scaling and gains nothing over bfloat16 or float32 for a head.
    """
    if precision == "auto":
        fast = engine.auto_precision() == "bfloat16"
        precision = "bfloat16" if wide and fast else "float32"
    return "float32" if precision == "float32" else f"mixed_{precision}"


def auto_batch(training_clips: int, wide: bool) -> int:
    """Clips per training step: as many as the machine likes, but at least eight steps an epoch."""
    most = 128 if wide else 64
    few = max(training_clips // 8, 1)
    return int(min(most, max(8, 2 ** int(np.log2(few)))))
