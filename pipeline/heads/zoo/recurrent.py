"""Heads that read the steps one after another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.heads.seeds import SeededLayers
from pipeline.heads.zoo.kinds import WIDEST, HeadKind, layers, option
from pipeline.heads.zoo.pools import FEW_RECIPE, POOLS, pooled


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sequence:
    """What all recurrent heads can do with the steps before and after the recurrence.

    project: width of a dense layer with layer normalisation that every step passes first; 0: none
    step_dropout: share of the channels dropped there, the same ones at all steps of a clip
    pool: what the layers after the recurrence read: the last state, or the states of all real steps;
        segments: mean and maximum of 1, 2 and 4 equal segments of them
    """

    project: int = option(0, before=0, most=WIDEST)
    step_dropout: float = option(0.0, before=0.0, most=0.95)
    pool: str = option("last", before="last", choices=POOLS)

    @property
    def sequences(self) -> bool:
        """Whether the last recurrent layer returns the states of all steps."""
        return self.pool != "last"

    def projected(self, x: Any, seeded: SeededLayers) -> Any:
        """`x` (batch, steps, channels) → dense → layer normalisation → dropout over steps."""
        if self.project:
            x = layers.LayerNormalization()(seeded.dense(x, self.project, activation=None))
        return seeded(layers.SpatialDropout1D, self.step_dropout)(x) if self.step_dropout else x


REGULARISED = {"project": 128, "step_dropout": 0.3, "pool": "mean+max", "dropout": 0.5, "dense": 64}
"""Options of a preset for tens to some thousands of clips …"""
RECIPE = {
    "epochs": 40,
    "lr": 1e-3,
    "schedule": "cosine",
    "warmup": 0.1,
    "weight_decay": 0.05,
    "label_smoothing": 0.1,
    "weight_averaging": 0.98,
    "stopping": "auto",
}
"""… and the training that goes with them."""
FEW = {"project": 128, "step_dropout": 0.3, "pool": "segments", "dropout": 0.5, "dense": 0}
"""Options of the presets that are the default with fewer than `config.FEW_TRAINED` training clips."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LstmConfig(_Sequence):
    """Widths of the recurrent and the dense layer (0: none), and the dropout after each."""

    units: int = 4096
    dense: int = option(1024, most=WIDEST)
    dropout: float = 0.5

    def build(self, x: Any, mask: Any, classes: int, seeded: SeededLayers) -> Any:
        """(Projection) → LSTM → (pool) → dropout → dense → dropout → softmax."""
        lstm = seeded(layers.LSTM, self.units, return_sequences=self.sequences)
        x = pooled(lstm(self.projected(x, seeded), mask=mask), mask, self.pool, seeded)
        x = seeded.dropout(x, self.dropout)
        if self.dense:
            x = seeded.dropout(seeded.dense(x, self.dense), self.dropout)
        return seeded.probabilities(x, classes)


@dataclass(frozen=True, slots=True, kw_only=True)
class GruConfig(_Sequence):
    """Widths of both recurrent layers and of the dense one (0: without it), and the dropout between.

    bidirectional: the first has a GRU in each direction of time
    """

    units: int = 16
    second_units: int = option(8, most=WIDEST)
    dense: int = option(8, most=WIDEST)
    dropout: float = 0.4
    bidirectional: bool = option(False, before=False)

    def build(self, x: Any, mask: Any, classes: int, seeded: SeededLayers) -> Any:
        """(Projection) → GRU → GRU → (pool) → dropout → dense → softmax, the mask to both GRUs."""
        x = self.projected(x, seeded)
        sequences = {"return_sequences": self.sequences or bool(self.second_units)}
        gru = seeded(layers.GRU, self.units, **sequences)
        if self.bidirectional:
            backward = seeded(layers.GRU, self.units, go_backwards=True, **sequences)
            gru = layers.Bidirectional(gru, backward_layer=backward)
        x = gru(x, mask=mask)
        if self.second_units:
            second = seeded(layers.GRU, self.second_units, return_sequences=self.sequences)
            x = second(x, mask=mask)
        x = seeded.dropout(pooled(x, mask, self.pool, seeded), self.dropout)
        x = seeded.dense(x, self.dense) if self.dense else x
        return seeded.probabilities(x, classes)


@dataclass(frozen=True, slots=True, kw_only=True)
class BilstmConfig(_Sequence):
    """Width of each direction and of the dense layer (0: none), and the dropout after each."""

    units: int = 512
    dense: int = option(256, most=WIDEST)
    dropout: float = 0.5

    def build(self, x: Any, mask: Any, classes: int, seeded: SeededLayers) -> Any:
        """(Projection) → both directions' states side by side → (pool) → dropout, as `lstm`."""
        # Both by hand: Keras would copy the first, its seeds too, and both directions would start equal.
        x, options = self.projected(x, seeded), {"return_sequences": self.sequences}
        forward = seeded(layers.LSTM, self.units, **options)
        backward = seeded(layers.LSTM, self.units, go_backwards=True, **options)
        x = layers.Bidirectional(forward, backward_layer=backward)(x, mask=mask)
        x = seeded.dropout(pooled(x, mask, self.pool, seeded), self.dropout)
        if self.dense:
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
            "regularised": {"units": 128, **REGULARISED},
            "few": {"units": 64, **FEW},
            "standard": {},
        },
        recipes={"regularised": RECIPE, "few": FEW_RECIPE},
        few="few",
        lr=1e-4,
    ),
    HeadKind(
        name="gru",
        one_line="two small GRUs",
        source="S. Paul, Video classification with a CNN-RNN architecture, keras.io (2021)",
        config=GruConfig,
        presets={
            "wide": {"units": 512, "second_units": 256, "dense": 128},
            "regularised": {"units": 128, "second_units": 64, **REGULARISED},
            "few": {"units": 64, "second_units": 0, "bidirectional": True, **FEW},
            "standard": {},
        },
        recipes={"regularised": RECIPE, "few": FEW_RECIPE},
        few="few",
        lr=2e-3,
    ),
    HeadKind(
        name="bilstm",
        one_line="an LSTM in each direction of time",
        source="A. Graves and J. Schmidhuber, Framewise phoneme classification (2005)",
        config=BilstmConfig,
        presets={
            "regularised": {"units": 64, **REGULARISED},
            "few": {"units": 64, **FEW},
            "standard": {},
        },
        recipes={"regularised": RECIPE, "few": FEW_RECIPE},
        few="few",
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
