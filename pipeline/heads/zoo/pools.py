"""How heads make one vector of the states of all steps, and the training that suits few clips."""

from __future__ import annotations

from typing import Any

from pipeline.heads.seeds import SeededLayers
from pipeline.heads.zoo.kinds import layers

POOLS = ("last", "mean", "mean+max", "attention", "segments")
"""`last`: of a recurrent layer its last state; `segments`: mean and maximum of 1, 2 and 4 segments."""

FEW_RECIPE = {
    "epochs": 40,
    "lr": 2e-3,
    "train_batch": 32,
    "schedule": "cosine",
    "warmup": 0.1,
    "weight_decay": 0.05,
    "label_smoothing": 0.1,
    "stopping": "auto",
}
"""The training that goes with the presets `few`."""


def pooled(x: Any, mask: Any, pool: str, seeded: SeededLayers) -> Any:
    """States (batch, steps, units), or with `last` (batch, units) → (batch, width)."""
    if pool == "attention":
        return seeded(layers.AttentionPool)(x, mask)
    if pool == "mean":
        return layers.MaskedMean()(x, mask)
    if pool == "mean+max":
        return layers.Concatenate()([layers.MaskedMean()(x, mask), layers.MaskedMax()(x, mask)])
    if pool == "segments":
        return layers.SegmentPool(deviations=False)(x, mask)
    return x
