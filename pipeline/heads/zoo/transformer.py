"""A small Transformer encoder with learned positions and masked pooling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.heads.seeds import SeededLayers
from pipeline.heads.zoo.kinds import HeadKind, layers


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerConfig:
    """Width of the steps inside, attention heads, encoder blocks, inner width and dropout."""

    units: int = 128
    heads: int = 4
    depth: int = 2
    inner: int = 256
    dropout: float = 0.3


def build(x: Any, mask: Any, classes: int, config: TransformerConfig, seeded: SeededLayers) -> Any:
    """Dense + positions → `depth` pre-norm encoder blocks → maximum over real steps → softmax."""
    x = seeded(layers.Dense, config.units)(x)
    x = seeded(layers.Dropout, config.dropout)(seeded(layers.Positions)(x))
    keys = layers.Reshape((1, x.shape[1]))(mask)
    for _ in range(config.depth):
        x = _block(x, keys, config, seeded)
    x = layers.LayerNormalization()(x)
    x = layers.MaskedMax()(x, mask)
    x = seeded(layers.Dropout, config.dropout)(x)
    return seeded.probabilities(classes)(x)


def _block(x: Any, keys: Any, config: TransformerConfig, seeded: SeededLayers) -> Any:
    width = max(config.units // config.heads, 1)
    y = layers.LayerNormalization()(x)
    y = seeded(layers.MultiHeadAttention, config.heads, width)(y, y, attention_mask=keys)
    x = layers.Add()([x, seeded(layers.Dropout, config.dropout)(y)])
    y = layers.LayerNormalization()(x)
    y = seeded(layers.Dense, config.inner, activation="gelu")(y)
    y = seeded(layers.Dense, config.units)(y)
    return layers.Add()([x, seeded(layers.Dropout, config.dropout)(y)])


HEAD = HeadKind(
    name="transformer",
    reads=("features",),
    one_line="a Transformer encoder with learned positions",
    source="S. Paul, Video classification with Transformers, keras.io (2021)",
    config=TransformerConfig,
    build=build,
    lr=3e-4,
)
