"""Heads that convolve: over time, or over the pixels of small frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.heads.seeds import SeededLayers
from pipeline.heads.zoo.kinds import HeadKind, layers, option
from pipeline.heads.zoo.pools import FEW_RECIPE, POOLS, pooled


@dataclass(frozen=True, slots=True, kw_only=True)
class TcnConfig:
    """Filters, kernel length and number of blocks (dilations 1, 2, 4, …), and the dropout.

    step_dropout: share of the channels dropped at all steps of a clip alike, after the first layer
    pool: what is made of all real steps
    """

    units: int = 128
    kernel: int = 3
    depth: int = 4
    dropout: float = 0.3
    step_dropout: float = option(0.0, before=0.0, most=0.95)
    pool: str = option("mean", before="mean", choices=POOLS[1:])

    def build(self, x: Any, mask: Any, classes: int, seeded: SeededLayers) -> Any:
        """Dense per step → `depth` residual blocks, padding zeroed before each → pool → softmax."""
        x = seeded.dense(x, self.units, activation=None)
        if self.step_dropout:
            x = seeded(layers.SpatialDropout1D, self.step_dropout)(x)
        for level in range(self.depth):
            # Each block sees twice as far as the one before.
            y = layers.ZeroPadding()(layers.LayerNormalization()(x), mask)
            dilation = 2**level
            y = seeded.convolution(
                layers.Conv1D, y, self.units, self.kernel, dilation_rate=dilation
            )
            x = layers.Add()([x, seeded.dropout(y, self.dropout)])
        x = pooled(layers.LayerNormalization()(x), mask, self.pool, seeded)
        return seeded.probabilities(seeded.dropout(x, self.dropout), classes)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvlstmConfig:
    """Filters of the four blocks, the dropout between them and on the recurrent state.

    The widely used tutorial model, to the weight: 44,524 parameters for 4 classes at 20 × 64 × 64 × 3.
    """

    filters: tuple[int, ...] = (4, 8, 14, 16)
    dropout: float = 0.2
    recurrent_dropout: float = 0.2

    def build(self, x: Any, mask: Any, classes: int, seeded: SeededLayers) -> Any:
        """(ConvLSTM 3×3 → pool 2×2 → dropout) per block, the last without it → flatten → softmax."""
        options = {"return_sequences": True, "recurrent_dropout": self.recurrent_dropout}
        for level, filters in enumerate(self.filters):
            recurrent = seeded(layers.ConvLSTM2D, filters, 3, **options)
            # No mask: padding is on the right, so it reaches no real step, and what it yields becomes
            # zero. With one, Keras' loop under JAX cannot broadcast it over the pixels (Keras 3.15).
            x = layers.ZeroPadding()(recurrent(x), mask)
            x = layers.MaxPooling3D((1, 2, 2), padding="same")(x)
            if level + 1 < len(self.filters):
                x = seeded.dropout(x, self.dropout)
        return seeded.probabilities(layers.Flatten()(x), classes)


@dataclass(frozen=True, slots=True, kw_only=True)
class LrcnConfig:
    """Filters and pooling of the CNN's blocks, the LSTM's width and the CNN's dropout.

    The tutorial's LRCN: 73,060 parameters for 4 classes at 20 × 64 × 64 × 3.
    """

    filters: tuple[int, ...] = (16, 32, 64, 64)
    pools: tuple[int, ...] = (4, 4, 2, 2)
    units: int = 32
    dropout: float = 0.25

    def build(self, x: Any, mask: Any, classes: int, seeded: SeededLayers) -> Any:
        """(Conv 3×3 → pool → dropout) per block on each frame → flatten → LSTM → softmax."""
        for level, (filters, pool) in enumerate(zip(self.filters, self.pools, strict=True)):
            # A kernel of one step is the same 2D convolution on every frame.
            x = seeded.convolution(layers.Conv3D, x, filters, (1, 3, 3))
            x = layers.MaxPooling3D((1, pool, pool))(x)
            if level + 1 < len(self.filters):
                x = seeded.dropout(x, self.dropout)
        x = layers.Reshape((x.shape[1], x.shape[2] * x.shape[3] * x.shape[4]))(x)
        return seeded.probabilities(seeded(layers.LSTM, self.units)(x, mask=mask), classes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conv3dConfig:
    """Filters of the three blocks, the dense layer's width and the dropout."""

    filters: tuple[int, ...] = (16, 32, 64)
    dense: int = 64
    dropout: float = 0.3

    def build(self, x: Any, mask: Any, classes: int, seeded: SeededLayers) -> Any:
        """(Conv 3×3×3 → pool) per block, time halved from the second on → mean → dense → softmax."""
        for level, filters in enumerate(self.filters):
            x = seeded.convolution(layers.Conv3D, layers.ZeroPadding()(x, mask), filters, 3)
            x = layers.ZeroPadding()(x, mask)
            time = 1 if level == 0 else 2
            x = layers.MaxPooling3D((time, 2, 2), padding="same")(x)
            # Right-padded, so a pooled step is real where the first of its two steps is.
            mask = mask[:, ::time]
        x = layers.TimeDistributed(layers.GlobalAveragePooling2D())(x)
        x = seeded.dense(layers.MaskedMean()(x, mask), self.dense)
        return seeded.probabilities(seeded.dropout(x, self.dropout), classes)


HEADS = (
    HeadKind(
        name="tcn",
        one_line="dilated convolutions over time",
        source="S. Bai et al., An empirical evaluation of generic convolutional networks (2018)",
        config=TcnConfig,
        presets={
            "few": {
                "depth": 3,
                "dropout": 0.5,
                "step_dropout": 0.3,
                "pool": "segments",
            },
            "standard": {},
        },
        recipes={"few": FEW_RECIPE},
        few="few",
        lr=5e-4,
    ),
    HeadKind(
        name="convlstm",
        reads=("frames",),
        one_line="a stack of convolutional LSTMs on the pixels",
        source="X. Shi et al. (2015), as in Bleed AI's human activity recognition tutorial (2021)",
        config=ConvlstmConfig,
    ),
    HeadKind(
        name="lrcn",
        reads=("frames",),
        one_line="a small CNN on every frame and an LSTM, trained together",
        source="J. Donahue et al. (2015), as in Bleed AI's human activity recognition tutorial (2021)",
        config=LrcnConfig,
    ),
    HeadKind(
        name="conv3d",
        reads=("frames",),
        one_line="slow fusion by 3D convolutions",
        source="D. Tran et al., Learning spatiotemporal features with 3D convolutional networks (2015)",
        config=Conv3dConfig,
    ),
)
