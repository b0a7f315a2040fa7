"""Heads whose steps attend to each other; both begin with a dense layer and learned positions."""

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

    def build(self, x: Any, mask: Any, classes: int, seeded: SeededLayers) -> Any:
        """Dense per step + learned positions → self-attention (added) → attention pool → softmax."""
        x, real = _placed(x, mask, self, seeded)
        x = layers.LayerNormalization()(layers.Add()([x, _attended(x, real, self, seeded)]))
        x = seeded.dropout(seeded(layers.AttentionPool)(x, mask), self.dropout)
        return seeded.probabilities(x, classes)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerConfig:
    """Width of the steps inside, attention heads, encoder blocks, inner width and dropout."""

    units: int = 128
    heads: int = 4
    depth: int = 2
    inner: int = 256
    dropout: float = 0.3

    def build(self, x: Any, mask: Any, classes: int, seeded: SeededLayers) -> Any:
        """Dense + positions → `depth` pre-norm encoder blocks → maximum over real steps → softmax."""
        x, real = _placed(x, mask, self, seeded)
        for _ in range(self.depth):
            y = _attended(x, real, self, seeded)
            x = layers.Add()([x, seeded.dropout(y, self.dropout)])
            y = seeded.dense(layers.LayerNormalization()(x), self.inner, activation="gelu")
            y = seeded.dense(y, self.units, activation=None)
            x = layers.Add()([x, seeded.dropout(y, self.dropout)])
        x = layers.MaskedMax()(layers.LayerNormalization()(x), mask)
        return seeded.probabilities(seeded.dropout(x, self.dropout), classes)


Config = AttentionConfig | TransformerConfig


def _placed(x: Any, mask: Any, config: Config, seeded: SeededLayers) -> tuple[Any, Any]:
    """The steps with their positions, and the mask (batch, 1, steps) of what may be attended to."""
    x = seeded.dense(x, config.units, activation=None)
    x = seeded.dropout(seeded(layers.Positions)(x), config.dropout)
    return x, layers.Reshape((1, x.shape[1]))(mask)


def _attended(x: Any, real: Any, config: Config, seeded: SeededLayers) -> Any:
    """Self-attention over the normalised real steps."""
    width = max(config.units // config.heads, 1)
    y = layers.LayerNormalization()(x)
    return seeded(layers.MultiHeadAttention, config.heads, width)(y, y, attention_mask=real)


HEADS = (
    HeadKind(
        name="attention",
        one_line="self-attention, then a learned weighting of the steps",
        source="Z. Lin et al., A structured self-attentive sentence embedding (2017)",
        config=AttentionConfig,
        lr=5e-4,
    ),
    HeadKind(
        name="transformer",
        one_line="a Transformer encoder with learned positions",
        source="S. Paul, Video classification with Transformers, keras.io (2021)",
        config=TransformerConfig,
        lr=3e-4,
    ),
)
