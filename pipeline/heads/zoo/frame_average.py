"""Each frame classified alone, the probabilities averaged over the clip: blind to order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.heads.seeds import SeededLayers
from pipeline.heads.zoo.kinds import HeadKind, layers


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameAverageConfig:
    """The dropout on each frame's features."""

    dropout: float = 0.2


def build(x: Any, mask: Any, classes: int, config: FrameAverageConfig, seeded: SeededLayers) -> Any:
    """Dropout → softmax per step → mean over the real steps."""
    x = seeded(layers.Dropout, config.dropout)(x)
    x = seeded(layers.Dense, classes, activation="softmax", dtype="float32", name="per_step")(x)
    return layers.MaskedMean(dtype="float32", name="probabilities")(x, mask)


HEAD = HeadKind(
    name="frame_average",
    reads=("features",),
    one_line="a single-frame classifier, averaged over the clip",
    source="A. Karpathy et al., Large-scale video classification (2014), single frame",
    config=FrameAverageConfig,
    build=build,
    lr=1e-3,
)
