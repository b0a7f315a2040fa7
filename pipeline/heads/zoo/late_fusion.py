"""Every step through the same layers, then all steps merged at once by a learned layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.heads.seeds import SeededLayers
from pipeline.heads.zoo.kinds import HeadKind, layers


@dataclass(frozen=True, slots=True, kw_only=True)
class LateFusionConfig:
    """Width of the layer that every step passes, of the one that merges them, and dropout."""

    units: int = 64
    fusion: int = 128
    dropout: float = 0.4


def build(x: Any, mask: Any, classes: int, config: LateFusionConfig, seeded: SeededLayers) -> Any:
    """Dense per step → flatten → dense over all steps → softmax."""
    x = seeded(layers.Dense, config.units, activation="relu")(x)
    x = seeded(layers.Dropout, config.dropout)(x)
    x = layers.Flatten()(layers.ZeroPadding()(x, mask))
    x = seeded(layers.Dense, config.fusion, activation="relu", name="fusion")(x)
    x = seeded(layers.Dropout, config.dropout)(x)
    return seeded.probabilities(classes)(x)


HEAD = HeadKind(
    name="late_fusion",
    reads=("features",),
    one_line="per-step layers, merged at the end by a learned layer",
    source="A. Karpathy et al., Large-scale video classification (2014), late fusion",
    config=LateFusionConfig,
    build=build,
    lr=5e-4,
)
