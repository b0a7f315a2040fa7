"""A small CNN on every frame and an LSTM over them, trained together: the tutorial's LRCN.

73,060 parameters for 4 classes at 20 × 64 × 64 × 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.heads.seeds import SeededLayers
from pipeline.heads.zoo.kinds import HeadKind, layers


@dataclass(frozen=True, slots=True, kw_only=True)
class LrcnConfig:
    """Filters and pooling of the CNN's blocks, the LSTM's width and the CNN's dropout."""

    filters: tuple[int, ...] = (16, 32, 64, 64)
    pools: tuple[int, ...] = (4, 4, 2, 2)
    units: int = 32
    dropout: float = 0.25


def build(x: Any, mask: Any, classes: int, config: LrcnConfig, seeded: SeededLayers) -> Any:
    """(Conv 3×3 → pool → dropout) per block on each frame → flatten → LSTM → softmax."""
    for level, (filters, pool) in enumerate(zip(config.filters, config.pools, strict=True)):
        # A kernel of one step is the same 2D convolution on every frame.
        x = seeded(layers.Conv3D, filters, (1, 3, 3), padding="same", activation="relu")(x)
        x = layers.MaxPooling3D((1, pool, pool))(x)
        if level + 1 < len(config.filters):
            x = seeded(layers.Dropout, config.dropout)(x)
    x = layers.Reshape((x.shape[1], x.shape[2] * x.shape[3] * x.shape[4]))(x)
    x = seeded(layers.LSTM, config.units)(x, mask=mask)
    return seeded.probabilities(classes)(x)


HEAD = HeadKind(
    name="lrcn",
    reads=("frames",),
    one_line="a small CNN on every frame and an LSTM, trained together",
    source="J. Donahue et al. (2015), as in Bleed AI's human activity recognition tutorial (2021)",
    config=LrcnConfig,
    build=build,
    lr=1e-3,
)
