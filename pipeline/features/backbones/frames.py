"""The `frames` backbone: no network at all, the small frame itself is the feature."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pipeline.features.backbones.family import NO_WEIGHTS, BackboneKind, Family
from pipeline.features.backbones.protocol import check_frames


@dataclass(frozen=True, slots=True, kw_only=True)
class FramesBackbone:
    """Gives every frame back as it came: (n, size, size, 3), 0 to 255.

    Its result is uint8, not float32: the values are whole numbers and a store keeps them as bytes.
    """

    size: int
    batch: int = 64
    name: str = "frames"
    engine: str = "none"
    concurrency: int = 1
    whole_clips: bool = False
    software: dict[str, str] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        """One step: (size, size, 3)."""
        return (self.size, self.size, 3)

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """A copy of `frames`; the caller's buffer may be used again."""
        check_frames(frames, size=self.size, batch=self.batch)
        return frames.copy()


FAMILY = Family(
    kinds={
        "frames": BackboneKind(
            name="frames",
            size=64,
            shape=(64, 64, 3),
            dtype="uint8",
            needs_weights=False,
            one_line="the sampled frames themselves, small, for heads that read pixels",
        )
    },
    find_weights=lambda kind, setting, download: NO_WEIGHTS,
    load=lambda spec, weights, options: FramesBackbone(size=spec.size),
)
