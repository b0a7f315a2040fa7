"""An LSTM that reads the clip forwards and another that reads it backwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.heads.seeds import SeededLayers
from pipeline.heads.zoo.kinds import HeadKind, layers


@dataclass(frozen=True, slots=True, kw_only=True)
class BilstmConfig:
    """Width of each direction and of the dense layer, and the dropout after each."""

    units: int = 512
    dense: int = 256
    dropout: float = 0.5


def build(x: Any, mask: Any, classes: int, config: BilstmConfig, seeded: SeededLayers) -> Any:
    """Both directions' last states side by side → dropout → dense → dropout → softmax."""
    # Both by hand: Keras would copy the first, its seeds too, and both directions would start equal.
    forward = seeded(layers.LSTM, config.units)
    backward = seeded(layers.LSTM, config.units, go_backwards=True)
    x = layers.Bidirectional(forward, backward_layer=backward)(x, mask=mask)
    x = seeded(layers.Dropout, config.dropout)(x)
    x = seeded(layers.Dense, config.dense, activation="relu")(x)
    x = seeded(layers.Dropout, config.dropout)(x)
    return seeded.probabilities(classes)(x)


HEAD = HeadKind(
    name="bilstm",
    reads=("features",),
    one_line="an LSTM in each direction of time",
    source="A. Graves and J. Schmidhuber, Framewise phoneme classification (2005)",
    config=BilstmConfig,
    build=build,
    lr=3e-4,
)
