"""What a user should know of how a training went, in a sentence each."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.heads.compiling import way_to_fit
from pipeline.heads.config import FEW, FEW_TRAINED, TrainConfig
from pipeline.heads.fitting import Fitted
from pipeline.heads.measures import predicted_classes
from pipeline.heads.zoo import head_kind

LEARNED = 0.9
"""Top-1 in training from which on a head has learned its clips."""
Z = 1.645
"""Standard errors below which a rate is not beyond another (one-sided, 95 %)."""


def advice(fitted: Fitted) -> dict[str, Any]:
    """`advice`: the sentences, for `metrics.json`; empty where there is nothing to say."""
    found = [_preset_for_few(fitted), _at_chance(fitted), _few_to_stop_by(fitted)]
    sentences = list(filter(None, found))
    return {"advice": sentences} if sentences else {}


def _preset_for_few(fitted: Fitted) -> str:
    """A note that the preset for few clips was used, not the published head."""
    settings = fitted.fit.settings
    few = head_kind(settings.head).few
    if not few or dict(settings.options) != {"preset": few}:
        return ""
    return (
        f"{settings.head} was trained by its preset {few}, the default with fewer than {FEW_TRAINED:,} "
        "training clips and no options given: --preset standard is the head as published"
    )


def _at_chance(fitted: Fitted) -> str:
    """What to try if a head has learned its training clips and tells nothing of others."""
    progress, settings = fitted.progress, fitted.fit.settings
    at, probabilities = fitted.parts["validation"]
    top1 = max(report.top1 for report in progress.history)
    if not len(at) or top1 < LEARNED:
        return ""
    labels = fitted.fit.clips.labels[at]
    right = float((predicted_classes(probabilities) == labels).mean())
    commonest = float(np.bincount(labels).max() / len(labels))
    if right > commonest + Z * np.sqrt(commonest * (1 - commonest) / len(labels)):
        return ""
    return (
        f"{settings.head} has learned its {len(fitted.fit.split.train)} training clips (top-1 "
        f"{top1:.2f}) and is at chance on {len(labels)} validation clips ({right:.2f}, the commonest "
        f"class alone gives {commonest:.2f}): {_remedy(settings)}"
    )


def _remedy(settings: TrainConfig) -> str:
    if settings.head == "pyramid":
        return "add clips, or compute other features (docs/heads.md)"
    few = head_kind(settings.head).few
    if way_to_fit(settings) == "solved" or (few and settings.options.get("preset") == few):
        return (
            "try --head pyramid, which sees how a clip changes, or other features (docs/heads.md)"
        )
    return "try --head pyramid, or --head gru --preset few"


def _few_to_stop_by(fitted: Fitted) -> str:
    """A note that early stopping went by few validation clips, or was left out for want of them."""
    settings, clips = fitted.fit.settings, len(fitted.fit.split.validation)
    if way_to_fit(settings) == "solved" or not 0 < clips < FEW:
        return ""
    if settings.stopping == "validation":
        return (
            f"{clips} validation clips are few to choose an epoch by (fewer than {FEW}): "
            "--stopping inner chooses by inner folds of the training clips, --stopping fixed runs all"
        )
    how = "by inner folds" if settings.stopping == "inner" else "beforehand"
    return (
        f"{clips} validation clips are few to choose an epoch by (fewer than {FEW}): the number of "
        f"epochs was chosen {how}"
    )
