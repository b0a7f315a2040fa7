"""The `motion` backbone as it is registered: its kind, and how it is loaded."""

from __future__ import annotations

from pipeline import engine
from pipeline.errors import ConfigError
from pipeline.features.backbones.family import (
    NO_WEIGHTS,
    Backbone,
    BackboneKind,
    Family,
    LoadOptions,
    Weights,
)
from pipeline.features.backbones.motion_channels import CHANNELS
from pipeline.spec import Spec


def load(spec: Spec, weights: Weights, options: LoadOptions) -> Backbone:
    """As many clips at once as the options have threads. Raises `ConfigError` on another precision."""
    if spec.precision != "float32":
        raise ConfigError(f"motion computes in float32, not in {spec.precision}: use float32")
    from pipeline.features.backbones.motion import MotionBackbone

    return MotionBackbone(spec, threads=options.threads or engine.cores())


FAMILY = Family(
    kinds={
        "motion": BackboneKind(
            name="motion",
            # Of the longer side. At 128 pixels small movements are lost.
            size=192,
            shape=(len(CHANNELS),),
            dtype="float16",
            fit="whole",
            window=2,
            gap_s=0.1,
            channels=CHANNELS,
            needs_weights=False,
            one_line="histograms of the optical flow between two frames",
        )
    },
    find_weights=lambda kind, setting, download: NO_WEIGHTS,
    load=load,
)
