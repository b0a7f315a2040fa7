"""A head that is solved for: statistics of a clip's segments, and a linear classifier of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pipeline.heads.seeds import SeededLayers
from pipeline.heads.zoo.kinds import STRONGEST, HeadKind, layers, option


@dataclass(frozen=True, slots=True, kw_only=True)
class PyramidConfig:
    """Into how many segments each level cuts a clip, and the classifier's strength.

    strength: how much the training clips count against the L2 penalty; 0: chosen by inner folds
    """

    fit: ClassVar[str] = "solved"
    raw_features: ClassVar[bool] = True
    levels: tuple[int, ...] = (1, 2, 4)
    strength: float = option(0.0, most=STRONGEST)

    def build(self, x: Any, mask: Any, classes: int, seeded: SeededLayers) -> Any:
        """Mean, max and deviation of every segment → signed root → scaled, clipped → softmax."""
        x = layers.SegmentPool(self.levels, name="segments")(x, mask)
        x = layers.SignedRoot(name="signed_root", dtype="float32")(x)
        x = layers.ColumnScale(name="columns", dtype="float32")(x)
        return seeded.probabilities(x, classes)


HEADS = (
    HeadKind(
        name="pyramid",
        one_line="mean, maximum and deviation of 1, 2 and 4 segments, a linear classifier of them",
        source="S. Lazebnik et al., Beyond bags of features (2006), in time instead of space",
        config=PyramidConfig,
    ),
)
