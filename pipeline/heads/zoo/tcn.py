"""Dilated convolutions over time: each block sees twice as far as the one before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.heads.seeds import SeededLayers
from pipeline.heads.zoo.kinds import HeadKind, layers


@dataclass(frozen=True, slots=True, kw_only=True)
class TcnConfig:
    """Filters, kernel length and number of blocks (dilations 1, 2, 4, …), and the dropout."""

    units: int = 128
    kernel: int = 3
    depth: int = 4
    dropout: float = 0.3


def build(x: Any, mask: Any, classes: int, config: TcnConfig, seeded: SeededLayers) -> Any:
    """Dense per step → `depth` residual blocks, padding zeroed before each → mean → softmax."""
    x = seeded(layers.Dense, config.units)(x)
    for level in range(config.depth):
        y = layers.LayerNormalization()(x)
        y = seeded(
            layers.Conv1D,
            config.units,
            config.kernel,
            dilation_rate=2**level,
            padding="same",
            activation="relu",
        )(layers.ZeroPadding()(y, mask))
        x = layers.Add()([x, seeded(layers.Dropout, config.dropout)(y)])
    x = layers.MaskedMean()(layers.LayerNormalization()(x), mask)
    x = seeded(layers.Dropout, config.dropout)(x)
    return seeded.probabilities(classes)(x)


HEAD = HeadKind(
    name="tcn",
    reads=("features",),
    one_line="dilated convolutions over time",
    source="S. Bai et al., An empirical evaluation of generic convolutional networks (2018)",
    config=TcnConfig,
    build=build,
    lr=5e-4,
)
