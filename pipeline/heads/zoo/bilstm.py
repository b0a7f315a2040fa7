"""An LSTM that reads the clip forwards and another that reads it backwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.heads.lean import keras
from pipeline.heads.recurrent import LSTM
from pipeline.heads.zoo.kinds import HeadKind

layers = keras.layers


@dataclass(frozen=True, slots=True, kw_only=True)
class BilstmConfig:
    """Width of each direction and of the dense layer, and the dropout after each."""

    units: int = 512
    dense: int = 256
    dropout: float = 0.5


def build(x: Any, mask: Any, classes: int, config: BilstmConfig) -> Any:
    """Both directions' last states side by side → dropout → dense → dropout → softmax."""
    x = layers.Bidirectional(LSTM(config.units))(x, mask=mask)
    x = layers.Dropout(config.dropout)(x)
    x = layers.Dense(config.dense, activation="relu")(x)
    x = layers.Dropout(config.dropout)(x)
    return layers.Dense(classes, activation="softmax", dtype="float32", name="probabilities")(x)


HEAD = HeadKind(
    name="bilstm",
    reads=("features",),
    one_line="an LSTM in each direction of time",
    source="A. Graves and J. Schmidhuber, Framewise phoneme classification (2005)",
    config=BilstmConfig,
    build=build,
    lr=3e-4,
)
