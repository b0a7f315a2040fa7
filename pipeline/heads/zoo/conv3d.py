"""Slow fusion: 3D convolutions that widen their view of time layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.heads.seeds import SeededLayers
from pipeline.heads.zoo.kinds import HeadKind, layers


@dataclass(frozen=True, slots=True, kw_only=True)
class Conv3dConfig:
    """Filters of the three blocks, the dense layer's width and the dropout."""

    filters: tuple[int, ...] = (16, 32, 64)
    dense: int = 64
    dropout: float = 0.3


def build(x: Any, mask: Any, classes: int, config: Conv3dConfig, seeded: SeededLayers) -> Any:
    """(Conv 3×3×3 → pool) per block, time halved from the second on → mean → dense → softmax."""
    for level, filters in enumerate(config.filters):
        x = seeded(layers.Conv3D, filters, 3, padding="same", activation="relu")(
            layers.ZeroPadding()(x, mask)
        )
        x = layers.ZeroPadding()(x, mask)
        time = 1 if level == 0 else 2
        x = layers.MaxPooling3D((time, 2, 2), padding="same")(x)
        # Right-padded, so a pooled step is real where the first of its two steps is.
        mask = mask[:, ::time]
    x = layers.TimeDistributed(layers.GlobalAveragePooling2D())(x)
    x = layers.MaskedMean()(x, mask)
    x = seeded(layers.Dense, config.dense, activation="relu")(x)
    x = seeded(layers.Dropout, config.dropout)(x)
    return seeded.probabilities(classes)(x)


HEAD = HeadKind(
    name="conv3d",
    reads=("frames",),
    one_line="slow fusion by 3D convolutions",
    source="D. Tran et al., Learning spatiotemporal features with 3D convolutional networks (2015)",
    config=Conv3dConfig,
    build=build,
    lr=1e-3,
)
