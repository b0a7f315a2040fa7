"""The `frames` backbone: no network at all, the small frame itself is the feature."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.features.backbones.family import NO_WEIGHTS, Backbone, BackboneKind, Family


class FramesBackbone(Backbone):
    """Gives every frame back as it came: (n, size, size, 3), 0 to 255.

    Its result is uint8, not float32: the values are whole numbers and a store keeps them as bytes.
    """

    def features_of(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A copy of `frames`; the caller's buffer may be used again."""
        return frames.copy()


FAMILY = Family(
    kinds={
        "frames": BackboneKind(
            name="frames",
            size=64,
            shape=(64, 64, 3),
            dtype="uint8",
            needs_weights=False,
            one_line="the fitted frame itself",
        )
    },
    find_weights=lambda kind, setting, download: NO_WEIGHTS,
    load=lambda spec, weights, options: FramesBackbone(
        spec, engine="none", batch=64, concurrency=1, software={}
    ),
)
