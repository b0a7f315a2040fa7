"""Two small GRUs: the Keras example on video classification with a CNN-RNN."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.heads.seeds import SeededLayers
from pipeline.heads.zoo.kinds import HeadKind, layers


@dataclass(frozen=True, slots=True, kw_only=True)
class GruConfig:
    """Widths of both recurrent layers and of the dense one, and the dropout between."""

    units: int = 16
    second_units: int = 8
    dense: int = 8
    dropout: float = 0.4


def build(x: Any, mask: Any, classes: int, config: GruConfig, seeded: SeededLayers) -> Any:
    """GRU → GRU → dropout → dense → softmax, the mask to both GRUs."""
    x = seeded(layers.GRU, config.units, return_sequences=True)(x, mask=mask)
    x = seeded(layers.GRU, config.second_units)(x, mask=mask)
    x = seeded(layers.Dropout, config.dropout)(x)
    x = seeded(layers.Dense, config.dense, activation="relu")(x)
    return seeded.probabilities(classes)(x)


HEAD = HeadKind(
    name="gru",
    reads=("features",),
    one_line="two small GRUs",
    source="S. Paul, Video classification with a CNN-RNN architecture, keras.io (2021)",
    config=GruConfig,
    build=build,
    presets={"wide": {"units": 512, "second_units": 256, "dense": 128}},
    lr=2e-3,
)
