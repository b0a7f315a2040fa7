"""A stack of convolutional LSTMs on the pixels: the widely used tutorial model, to the weight.

44,524 parameters for 4 classes at 20 × 64 × 64 × 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.heads.seeds import SeededLayers
from pipeline.heads.zoo.kinds import HeadKind, layers


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvlstmConfig:
    """Filters of the four blocks, the dropout between them and on the recurrent state."""

    filters: tuple[int, ...] = (4, 8, 14, 16)
    dropout: float = 0.2
    recurrent_dropout: float = 0.2


def build(x: Any, mask: Any, classes: int, config: ConvlstmConfig, seeded: SeededLayers) -> Any:
    """(ConvLSTM 3×3 → pool 2×2 → dropout) per block, the last without dropout → flatten → softmax."""
    for level, filters in enumerate(config.filters):
        recurrent = seeded(
            layers.ConvLSTM2D,
            filters,
            3,
            return_sequences=True,
            recurrent_dropout=config.recurrent_dropout,
        )
        # No mask: padding is on the right, so it reaches no real step, and what it yields becomes zero.
        # With one, Keras' loop under JAX cannot broadcast it over the pixels (Keras 3.15).
        x = layers.ZeroPadding()(recurrent(x), mask)
        x = layers.MaxPooling3D((1, 2, 2), padding="same")(x)
        if level + 1 < len(config.filters):
            x = seeded(layers.Dropout, config.dropout)(x)
    x = layers.Flatten()(x)
    return seeded.probabilities(classes)(x)


HEAD = HeadKind(
    name="convlstm",
    reads=("frames",),
    one_line="a stack of convolutional LSTMs on the pixels",
    source="X. Shi et al. (2015), as in Bleed AI's human activity recognition tutorial (2021)",
    config=ConvlstmConfig,
    build=build,
    lr=1e-3,
)
