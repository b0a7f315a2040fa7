"""Heads that differ in where they merge the steps: at once, at the end, at the first layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.heads.seeds import SeededLayers
from pipeline.heads.zoo.kinds import FITS, STRONGEST, HeadKind, layers, option


@dataclass(frozen=True, slots=True, kw_only=True)
class MlpConfig:
    """Widths of both dense layers and the dropout after each."""

    units: int = 512
    second_units: int = 512
    dropout: float = 0.5

    def build(self, x: Any, mask: Any, classes: int, seeded: SeededLayers) -> Any:
        """Padding zeroed → flatten → dense → dropout → dense → dropout → softmax."""
        x = layers.Flatten()(layers.ZeroPadding()(x, mask))
        for units in (self.units, self.second_units):
            x = seeded.dropout(seeded.dense(x, units), self.dropout)
        return seeded.probabilities(x, classes)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameAverageConfig:
    """How it is fitted, its strength (0: chosen by inner folds), and the dropout of `gradient`.

    `solved` is a logistic regression of the steps with an L2 penalty; `gradient` is what runs of
    older versions were trained by.
    """

    dropout: float = 0.2
    fit: str = option("solved", before="gradient", choices=FITS)
    strength: float = option(0.0, before=0.0, most=STRONGEST)

    def build(self, x: Any, mask: Any, classes: int, seeded: SeededLayers) -> Any:
        """Dropout → softmax per step → mean over the real steps: blind to order."""
        x = seeded.probabilities(seeded.dropout(x, self.dropout), classes, name="per_step")
        return layers.MaskedMean(dtype="float32", name="probabilities")(x, mask)


@dataclass(frozen=True, slots=True, kw_only=True)
class LateFusionConfig:
    """Width of the layer that every step passes, of the one that merges them, and dropout."""

    units: int = 64
    fusion: int = 128
    dropout: float = 0.4

    def build(self, x: Any, mask: Any, classes: int, seeded: SeededLayers) -> Any:
        """Dense per step → flatten → dense over all steps → softmax."""
        x = seeded.dropout(seeded.dense(x, self.units), self.dropout)
        x = layers.Flatten()(layers.ZeroPadding()(x, mask))
        x = seeded.dropout(seeded.dense(x, self.fusion, name="fusion"), self.dropout)
        return seeded.probabilities(x, classes)


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyFusionConfig:
    """How many neighbouring steps are merged, the widths (or filters) after, and the dropout."""

    window: int = 5
    units: int = 128
    filters: int = 16
    dropout: float = 0.4

    def build(self, x: Any, mask: Any, classes: int, seeded: SeededLayers) -> Any:
        """One convolution over time first, then layers without time, then the mean of the steps."""
        if len(x.shape) == 5:
            x = self._pixels(x, mask, seeded)
        else:
            x = seeded.convolution(layers.Conv1D, x, self.units, self.window)
            x = seeded.dense(seeded.dropout(x, self.dropout), self.units)
        x = seeded.dropout(layers.MaskedMean()(x, mask), self.dropout)
        return seeded.probabilities(x, classes)

    def _pixels(self, x: Any, mask: Any, seeded: SeededLayers) -> Any:
        """(batch, steps, height, width, channel) → (batch, steps, filters)."""
        n, kernel = self.filters, (self.window, 5, 5)
        x = seeded.convolution(layers.Conv3D, x, n, kernel, strides=(1, 2, 2))
        for filters in (2 * n, 4 * n):
            x = layers.ZeroPadding()(x, mask)
            x = seeded.convolution(layers.Conv3D, x, filters, (1, 3, 3))
            x = layers.MaxPooling3D((1, 2, 2), padding="same")(x)
        # The mean over height and width of every step.
        x = layers.TimeDistributed(layers.GlobalAveragePooling2D())(x)
        return seeded.dropout(x, self.dropout)


HEADS = (
    HeadKind(
        name="mlp",
        one_line="the flattened sequence through a perceptron",
        source="M. Harvey, Five video classification methods (2017), method 5",
        config=MlpConfig,
        lr=1e-4,
    ),
    HeadKind(
        name="frame_average",
        one_line="a single-frame classifier, averaged over the clip",
        source="A. Karpathy et al., Large-scale video classification (2014), single frame",
        config=FrameAverageConfig,
    ),
    HeadKind(
        name="late_fusion",
        one_line="per-step layers, merged at the end by a learned layer",
        source="A. Karpathy et al., Large-scale video classification (2014), late fusion",
        config=LateFusionConfig,
        lr=5e-4,
    ),
    HeadKind(
        name="early_fusion",
        reads=("features", "frames"),
        one_line="neighbouring steps merged at the first layer",
        source="A. Karpathy et al., Large-scale video classification (2014), early fusion",
        config=EarlyFusionConfig,
        lr=5e-4,
    ),
)
