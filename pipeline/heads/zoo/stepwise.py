"""Heads that label every step of a video, of any length, instead of the clip as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.heads.seeds import SeededLayers
from pipeline.heads.zoo.kinds import HeadKind, layers, option

LAST, STAGE = "probabilities", "stage_{}_probabilities"
"""Names of the layers that end a head's last stage and those before it: each is trained."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stepwise:
    """What heads of steps share.

    smoothing: weight of the truncated mean squared error between the log-probabilities of neighbouring
        steps, beside the cross-entropy
    multi_label: whether several labels may apply at a time: sigmoids instead of a softmax
    """

    smoothing: float = option(0.15, most=10)
    multi_label: bool = False

    def ended(self, x: Any, classes: int, seeded: SeededLayers, name: str = LAST) -> Any:
        """`x` (batch, steps, units) → (batch, steps, classes) probabilities."""
        activation = "sigmoid" if self.multi_label else "softmax"
        return seeded.probabilities(x, classes, name, activation=activation)


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmenterConfig(_Stepwise):
    """Width of each direction, how many layers, width of the projection, and the dropout after each."""

    units: int = 96
    depth: int = 2
    project: int = 128
    dropout: float = 0.4

    def build(self, x: Any, mask: Any, classes: int, seeded: SeededLayers) -> Any:
        """Dense → normalise → dropout → (GRU both ways → normalise → dropout) × depth → dense."""
        x = layers.LayerNormalization()(seeded.dense(x, self.project, activation=None))
        x = seeded.dropout(x, self.dropout)
        for _ in range(self.depth):
            forward = seeded(layers.GRU, self.units, return_sequences=True)
            backward = seeded(layers.GRU, self.units, return_sequences=True, go_backwards=True)
            x = layers.Bidirectional(forward, backward_layer=backward)(x, mask=mask)
            x = seeded.dropout(layers.LayerNormalization()(x), self.dropout)
        return self.ended(x, classes, seeded)


@dataclass(frozen=True, slots=True, kw_only=True)
class MstcnConfig(_Stepwise):
    """Filters, how many stages and layers in each (dilations 1, 2, 4, …), kernel length, dropout.

    normalise: whether the first stage's projection of the features is normalised at every step, with
        dropout `input_dropout` after it: as published it is neither
    """

    normalise: bool = True
    input_dropout: float = 0.4
    units: int = 64
    stages: int = 4
    depth: int = 10
    kernel: int = 3
    dropout: float = 0.5

    def build(self, x: Any, mask: Any, classes: int, seeded: SeededLayers) -> Any:
        """Stages of dilated residual layers; each after the first reads the probabilities before it."""
        for stage in range(self.stages):
            y = seeded.dense(x, self.units, activation=None)
            if self.normalise and not stage:
                y = layers.LayerNormalization()(y)
            if self.input_dropout and not stage:
                y = seeded.dropout(y, self.input_dropout)
            for level in range(self.depth):
                y = self._residual(layers.ZeroPadding()(y, mask), 2**level, seeded)
            last = stage + 1 == self.stages
            x = self.ended(y, classes, seeded, LAST if last else STAGE.format(stage + 1))
            if not last:
                x = layers.ZeroPadding()(x, mask)
        return x

    def _residual(self, x: Any, dilation: int, seeded: SeededLayers) -> Any:
        y = seeded.convolution(layers.Conv1D, x, self.units, self.kernel, dilation_rate=dilation)
        y = seeded.dropout(seeded.dense(y, self.units, activation=None), self.dropout)
        return layers.Add()([x, y])


HEADS = (
    HeadKind(
        name="segmenter",
        per_step=True,
        one_line="labels every step: GRUs in both directions of time over whole videos",
        source="M. Schuster and K. Paliwal, Bidirectional recurrent neural networks (1997)",
        config=SegmenterConfig,
        lr=2e-3,
    ),
    HeadKind(
        name="mstcn",
        per_step=True,
        one_line="labels every step: multi-stage temporal convolutions over whole videos",
        source="Y. Abu Farha and J. Gall, MS-TCN (2019)",
        config=MstcnConfig,
        presets={"published": {"normalise": False, "input_dropout": 0.0}},
        # Its validation loss rests for dozens of epochs before it falls.
        recipes={"": {"epochs": 100, "patience": 40}, "published": {"lr": 5e-4}},
        lr=2e-3,
    ),
)
