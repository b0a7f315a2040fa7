"""The whole sequence flattened into one vector for a perceptron: the article's method 5."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.heads.seeds import SeededLayers
from pipeline.heads.zoo.kinds import HeadKind, layers


@dataclass(frozen=True, slots=True, kw_only=True)
class MlpConfig:
    """Widths of both dense layers and the dropout after each."""

    units: int = 512
    second_units: int = 512
    dropout: float = 0.5


def build(x: Any, mask: Any, classes: int, config: MlpConfig, seeded: SeededLayers) -> Any:
    """Padding zeroed → flatten → dense → dropout → dense → dropout → softmax."""
    x = layers.Flatten()(layers.ZeroPadding()(x, mask))
    for units in (config.units, config.second_units):
        x = seeded(layers.Dense, units, activation="relu")(x)
        x = seeded(layers.Dropout, config.dropout)(x)
    return seeded.probabilities(classes)(x)


HEAD = HeadKind(
    name="mlp",
    reads=("features",),
    one_line="the flattened sequence through a perceptron",
    source="M. Harvey, Five video classification methods (2017), method 5",
    config=MlpConfig,
    build=build,
    lr=1e-4,
)
