"""Several LSTMs on top of each other; the five-methods article found that this did worse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.heads.seeds import SeededLayers
from pipeline.heads.zoo.kinds import HeadKind, layers


@dataclass(frozen=True, slots=True, kw_only=True)
class StackedConfig:
    """Width and number of the recurrent layers, width of the dense one, dropout after each."""

    units: int = 512
    depth: int = 2
    dense: int = 256
    dropout: float = 0.5


def build(x: Any, mask: Any, classes: int, config: StackedConfig, seeded: SeededLayers) -> Any:
    """LSTM → dropout, `depth` times, then dense → dropout → softmax; the mask to every LSTM."""
    for level in range(config.depth):
        x = seeded(layers.LSTM, config.units, return_sequences=level + 1 < config.depth)(
            x, mask=mask
        )
        x = seeded(layers.Dropout, config.dropout)(x)
    x = seeded(layers.Dense, config.dense, activation="relu")(x)
    x = seeded(layers.Dropout, config.dropout)(x)
    return seeded.probabilities(classes)(x)


HEAD = HeadKind(
    name="stacked",
    reads=("features",),
    one_line="several LSTMs on top of each other",
    source="M. Harvey, Five video classification methods (2017), a variation of method 4",
    config=StackedConfig,
    build=build,
    lr=3e-4,
)
