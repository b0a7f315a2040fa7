"""What can be asked for as `BACKBONE=`, described without importing Keras.

A plan needs a backbone's frame size, the shape of one step and whether it has weights, long before
a worker loads it. Models of `keras.applications` come from a table; `frames` has no weights at all.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

from pipeline.errors import ConfigError
from pipeline.features.backbones.keras_models import KERAS_MODELS
from pipeline.spec import Dtype

Family = Literal["keras", "frames", "pose"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneKind:
    """What one backbone reads and gives.

    Frames are fitted to `size` × `size` pixels with `interpolation`; one step is `shape` of `dtype`
    in the store. `has_precisions` is false where values are always computed in float32 (or not
    computed at all), so that `auto` precision means float32. `one_line` is for a list that people
    read.
    """

    name: str
    family: Family
    size: int
    shape: tuple[int, ...]
    dtype: Dtype
    interpolation: str
    needs_weights: bool
    has_precisions: bool
    one_line: str


def describe(name: str) -> BackboneKind:
    """The kind of this name. Raises `ConfigError`, with the nearest name, where there is none."""
    if name in _OTHERS:
        return _OTHERS[name]
    if name not in KERAS_MODELS:
        near = difflib.get_close_matches(name, backbone_names(), n=1)
        hint = f"did you mean {near[0]}?" if near else f"use one of {', '.join(backbone_names())}"
        raise ConfigError(f"backbone {name!r} is not known: {hint}")
    model = KERAS_MODELS[name]
    return BackboneKind(
        name=name,
        family="keras",
        size=model.size,
        shape=(model.channels,),
        dtype="float16",
        interpolation="area",
        needs_weights=True,
        has_precisions=True,
        one_line=f"keras.applications.{model.function} without its top, average-pooled",
    )


def backbone_names() -> list[str]:
    """Every known name: the default first, the others sorted."""
    return ["inception_v3", *sorted({*_OTHERS, *KERAS_MODELS} - {"inception_v3"})]


_OTHERS = {
    "frames": BackboneKind(
        name="frames",
        family="frames",
        size=64,
        shape=(64, 64, 3),
        dtype="uint8",
        interpolation="area",
        needs_weights=False,
        has_precisions=False,
        one_line="the sampled frames themselves, small, for heads that read pixels",
    ),
    "pose": BackboneKind(
        name="pose",
        family="pose",
        # The person is cut out of this at 256 pixels; the detector sees it at 224.
        size=384,
        shape=(33, 4),
        dtype="float32",
        interpolation="area",
        needs_weights=True,
        has_precisions=False,
        one_line="33 body landmarks (x, y, z, visibility) of one person, by BlazePose",
    ),
}
