"""Heads that read the steps one after another."""

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

    def build(self, x: Any, mask: Any, classes: int, seeded: SeededLayers) -> Any:
        """LSTM → dropout → dense → dropout → softmax."""
        x = seeded(layers.LSTM, self.units)(x, mask=mask)
        x = seeded.dropout(x, self.dropout)
        x = seeded.dropout(seeded.dense(x, self.dense), self.dropout)
        return seeded.probabilities(x, classes)


@dataclass(frozen=True, slots=True, kw_only=True)
class GruConfig:
    """Widths of both recurrent layers and of the dense one, and the dropout between."""

    units: int = 16
    second_units: int = 8
    dense: int = 8
    dropout: float = 0.4

    def build(self, x: Any, mask: Any, classes: int, seeded: SeededLayers) -> Any:
        """GRU → GRU → dropout → dense → softmax, the mask to both GRUs."""
        x = seeded(layers.GRU, self.units, return_sequences=True)(x, mask=mask)
        x = seeded(layers.GRU, self.second_units)(x, mask=mask)
        x = seeded.dense(seeded.dropout(x, self.dropout), self.dense)
        return seeded.probabilities(x, classes)


@dataclass(frozen=True, slots=True, kw_only=True)
class BilstmConfig:
    """Width of each direction and of the dense layer, and the dropout after each."""

    units: int = 512
    dense: int = 256
    dropout: float = 0.5

    def build(self, x: Any, mask: Any, classes: int, seeded: SeededLayers) -> Any:
        """Both directions' last states side by side → dropout → dense → dropout → softmax."""
        # Both by hand: Keras would copy the first, its seeds too, and both directions would start equal.
        forward = seeded(layers.LSTM, self.units)
        backward = seeded(layers.LSTM, self.units, go_backwards=True)
        x = layers.Bidirectional(forward, backward_layer=backward)(x, mask=mask)
        x = seeded.dropout(x, self.dropout)
        x = seeded.dropout(seeded.dense(x, self.dense), self.dropout)
        return seeded.probabilities(x, classes)


@dataclass(frozen=True, slots=True, kw_only=True)
class StackedConfig:
    """Width and number of the recurrent layers, width of the dense one, dropout after each."""

    units: int = 512
    depth: int = 2
    dense: int = 256
    dropout: float = 0.5

    def build(self, x: Any, mask: Any, classes: int, seeded: SeededLayers) -> Any:
        """LSTM → dropout, `depth` times, then dense → dropout → softmax; the mask to every LSTM."""
        for level in range(self.depth):
            lstm = seeded(layers.LSTM, self.units, return_sequences=level + 1 < self.depth)
            x = seeded.dropout(lstm(x, mask=mask), self.dropout)
        x = seeded.dropout(seeded.dense(x, self.dense), self.dropout)
        return seeded.probabilities(x, classes)


HEADS = (
    HeadKind(
        name="lstm",
        one_line="one wide LSTM, then a dense layer",
        source="M. Harvey, Five video classification methods (2017), method 4",
        config=LstmConfig,
        presets={
            "article_code": {"units": 2048, "dense": 512},
            "small": {"units": 256, "dense": 64},
        },
        lr=1e-4,
    ),
    HeadKind(
        name="gru",
        one_line="two small GRUs",
        source="S. Paul, Video classification with a CNN-RNN architecture, keras.io (2021)",
        config=GruConfig,
        presets={"wide": {"units": 512, "second_units": 256, "dense": 128}},
        lr=2e-3,
    ),
    HeadKind(
        name="bilstm",
        one_line="an LSTM in each direction of time",
        source="A. Graves and J. Schmidhuber, Framewise phoneme classification (2005)",
        config=BilstmConfig,
        lr=3e-4,
    ),
    # The article found that this did worse than one LSTM.
    HeadKind(
        name="stacked",
        one_line="several LSTMs on top of each other",
        source="M. Harvey, Five video classification methods (2017), a variation of method 4",
        config=StackedConfig,
        lr=3e-4,
    ),
)
