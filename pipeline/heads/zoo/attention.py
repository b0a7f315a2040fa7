"""Self-attention over the steps, then a learned weighting of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.heads.seeds import SeededLayers
from pipeline.heads.zoo.kinds import HeadKind, layers


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionConfig:
    """Width of the steps inside, number of attention heads, dropout."""

    units: int = 128
    heads: int = 4
    dropout: float = 0.4


def build(x: Any, mask: Any, classes: int, config: AttentionConfig, seeded: SeededLayers) -> Any:
    """Dense per step + learned positions → self-attention (added) → attention pool → softmax."""
    x = seeded(layers.Dense, config.units)(x)
    x = seeded(layers.Dropout, config.dropout)(seeded(layers.Positions)(x))
    width = max(config.units // config.heads, 1)
    y = layers.LayerNormalization()(x)
    keys = layers.Reshape((1, x.shape[1]))(mask)
    y = seeded(layers.MultiHeadAttention, config.heads, width)(y, y, attention_mask=keys)
    x = layers.LayerNormalization()(layers.Add()([x, y]))
    x = seeded(layers.AttentionPool)(x, mask)
    x = seeded(layers.Dropout, config.dropout)(x)
    return seeded.probabilities(classes)(x)


HEAD = HeadKind(
    name="attention",
    reads=("features",),
    one_line="self-attention, then a learned weighting of the steps",
    source="Z. Lin et al., A structured self-attentive sentence embedding (2017)",
    config=AttentionConfig,
    build=build,
    lr=5e-4,
)
