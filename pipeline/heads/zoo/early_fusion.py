"""Neighbouring steps merged by the very first layer; everything after it sees single steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.heads.seeds import SeededLayers
from pipeline.heads.zoo.kinds import HeadKind, layers


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyFusionConfig:
    """How many neighbouring steps are merged, the widths (or filters) after, and the dropout."""

    window: int = 5
    units: int = 128
    filters: int = 16
    dropout: float = 0.4


def build(x: Any, mask: Any, classes: int, config: EarlyFusionConfig, seeded: SeededLayers) -> Any:
    """One convolution over time first, then layers without time, then the mean of the steps."""
    if len(x.shape) == 5:
        x = _pixels(x, mask, config, seeded)
    else:
        x = seeded(layers.Conv1D, config.units, config.window, padding="same", activation="relu")(x)
        x = seeded(layers.Dropout, config.dropout)(x)
        x = seeded(layers.Dense, config.units, activation="relu")(x)
    x = layers.MaskedMean()(x, mask)
    x = seeded(layers.Dropout, config.dropout)(x)
    return seeded.probabilities(classes)(x)


def _pixels(x: Any, mask: Any, config: EarlyFusionConfig, seeded: SeededLayers) -> Any:
    """(batch, steps, height, width, channel) → (batch, steps, filters)."""
    n = config.filters
    kernel = (config.window, 5, 5)
    x = seeded(layers.Conv3D, n, kernel, strides=(1, 2, 2), padding="same", activation="relu")(x)
    for filters in (2 * n, 4 * n):
        x = layers.ZeroPadding()(x, mask)
        x = seeded(layers.Conv3D, filters, (1, 3, 3), padding="same", activation="relu")(x)
        x = layers.MaxPooling3D((1, 2, 2), padding="same")(x)
    # The mean over height and width of every step.
    x = layers.TimeDistributed(layers.GlobalAveragePooling2D())(x)
    return seeded(layers.Dropout, config.dropout)(x)


HEAD = HeadKind(
    name="early_fusion",
    reads=("features", "frames"),
    one_line="neighbouring steps merged at the first layer",
    source="A. Karpathy et al., Large-scale video classification (2014), early fusion",
    config=EarlyFusionConfig,
    build=build,
    lr=5e-4,
)
