"""One wide LSTM over the clip, then a dense layer: the five-methods article's method 4."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.heads.seeds import SeededLayers
from pipeline.heads.zoo.kinds import HeadKind, layers


@dataclass(frozen=True, slots=True, kw_only=True)
class LstmConfig:
    """Widths of the recurrent and the dense layer, and the dropout after each."""

    units: int = 4096
    dense: int = 1024
    dropout: float = 0.5


def build(x: Any, mask: Any, classes: int, config: LstmConfig, seeded: SeededLayers) -> Any:
    """LSTM → dropout → dense → dropout → softmax."""
    x = seeded(layers.LSTM, config.units)(x, mask=mask)
    x = seeded(layers.Dropout, config.dropout)(x)
    x = seeded(layers.Dense, config.dense, activation="relu")(x)
    x = seeded(layers.Dropout, config.dropout)(x)
    return seeded.probabilities(classes)(x)


HEAD = HeadKind(
    name="lstm",
    reads=("features",),
    one_line="one wide LSTM, then a dense layer",
    source="M. Harvey, Five video classification methods (2017), method 4",
    config=LstmConfig,
    build=build,
    presets={"article_code": {"units": 2048, "dense": 512}, "small": {"units": 256, "dense": 64}},
    lr=1e-4,
)
