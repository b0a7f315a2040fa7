"""What one family of backbones registers: its kinds, where their weights are, how one is loaded.

A plan needs a backbone's frame size, the shape of one step and its weights' hash long before a worker
loads it, so a family's module imports Keras and other runtimes only inside `load`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.features.files import sha256
from pipeline.spec import Dtype, Fit, Preprocessing, Spec

Gaps = NDArray[np.float64] | None
"""(n,) seconds from frame to frame within the window of each step; None where a window is one frame."""


class Backbone(ABC):
    """A loaded backbone: frames in, one vector (or small array) per step out.

    A step is computed from one frame, or from `window` of them. `concurrency` threads may call it at
    once, and that many keep the device busy. Every call runs one fixed batch shape of `batch` steps and
    pads itself, and a step's result does not depend, to the bit, on its place in the batch, on
    its neighbours or on the caller's thread. Where `whole_clips` is true a call must hold all steps of
    one clip, in order, and no others.
    name, size, shape, window: the spec's. software: the versions that compute the features.
    """

    whole_clips = False
    block = 0
    """Frames of a block, where it takes a batch as blocks that lie apart (`features_of_blocks`)."""
    digest = ""
    """Of a `Backbone` that a user's code returns: a text that changes with its features."""

    def __init__(
        self, spec: Spec, *, engine: str, batch: int, concurrency: int, software: dict[str, str]
    ) -> None:
        self.spec = spec
        self.name, self.size, self.shape = spec.backbone, spec.size, spec.shape
        self.window = spec.window
        self._whole = spec.fit == "whole"
        self.engine, self.batch, self.concurrency = engine, batch, concurrency
        self.software = software

    def __call__(self, frames: NDArray[np.uint8], gaps_s: Gaps = None) -> NDArray[Any]:
        """The features of 1 to `batch` steps, (n, *shape). Raises `ValueError` for other frames.

        frames: (n, size, size, 3) uint8 RGB; (n, window, size, size, 3) if a window is several. Of
            frames that keep their proportions the longer side is `size`, the other at most that.
        """
        if frames.dtype != np.uint8 or not self._takes(frames.shape[1:]):
            raise ValueError(
                f"frames are {frames.shape} {frames.dtype}: this backbone takes "
                f"(n, {', '.join(self._step_shape)}) uint8"
            )
        if not 1 <= len(frames) <= self.batch:
            raise ValueError(f"{len(frames)} frames in one call: give 1 to {self.batch}")
        if gaps_s is None:
            return self.features_of(frames)
        return self.features_in_time(frames, gaps_s)

    @abstractmethod
    def features_of(self, frames: NDArray[np.uint8]) -> NDArray[Any]:
        """(n, *shape), float32 or what the store keeps, of frames that fit."""

    def features_of_blocks(self, blocks: Sequence[NDArray[np.uint8]]) -> NDArray[Any]:
        """The same of a whole batch, given as arrays of `block` frames wherever they lie."""
        return self(np.concatenate(blocks))

    def features_in_time(
        self, frames: NDArray[np.uint8], gaps_s: NDArray[np.float64]
    ) -> NDArray[Any]:
        """The same, knowing the seconds between a window's frames: for backbones that measure speed."""
        return self.features_of(frames)

    def _takes(self, shape: tuple[int, ...]) -> bool:
        *window, height, width, channels = shape if len(shape) >= 3 else (0, 0, 0)
        sides = (height, width)
        fits = max(sides) == self.size if self._whole else sides == (self.size, self.size)
        windows = [] if self.window == 1 else [self.window]
        return fits and min(sides) >= 1 and channels == 3 and window == windows

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Of one call's frames: (batch, size, size, 3), or with the window's frames before the sides."""
        window = (self.window,) if self.window > 1 else ()
        return (self.batch, *window, self.size, self.size, 3)

    @property
    def _step_shape(self) -> tuple[str, ...]:
        side = f"{'up to ' * self._whole}{self.size}"
        return (*([str(self.window)] if self.window > 1 else []), side, side, "3")

    def __repr__(self) -> str:
        shapes = f"({self.batch}, {', '.join(self._step_shape)}) → {(self.batch, *self.shape)}"
        callers = f"{self.concurrency} calls at once"
        return f"{type(self).__name__}({self.name} on {self.engine}: {shapes}, {callers})"


def padded(frames: NDArray[np.uint8], batch: int) -> NDArray[np.uint8]:
    """`frames` as a whole batch: itself where it is one, else filled up with zeros."""
    if len(frames) == batch:
        return np.ascontiguousarray(frames)
    whole = np.zeros((batch, *frames.shape[1:]), frames.dtype)
    whole[: len(frames)] = frames
    return whole


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneKind:
    """What one backbone reads and gives.

    Frames are fitted to `size` × `size` pixels with `interpolation`; one step is `shape` of `dtype`.
    `fit` is how, unless the user chooses another; "whole" (in proportion, the longer side `size`) leaves
    no choice, and is for backbones that take whole clips. A step is computed from `window` frames,
    `gap_s` seconds or `gap` frames apart. `channels` names the numbers of a step, where they have names.
    `dtype` is what a store has, unless the run's `--dtype` names another; whole numbers (uint8) are
    always stored as such. `preprocessing` is that of a model of the user's. `has_precisions` is false
    where values are always computed in float32 (or not computed at all), so that `auto` precision means
    float32. `parameters`: how many numbers it has learned; 0 for none, or where that is not known.
    `one_line`: what it is.
    """

    name: str
    size: int
    shape: tuple[int, ...]
    dtype: Dtype
    interpolation: str = "area"
    fit: Fit = "crop"
    window: int = 1
    gap_s: float = 0.0
    gap: int = 0
    channels: tuple[str, ...] = ()
    needs_weights: bool = True
    has_precisions: bool = False
    preprocessing: Preprocessing | None = None
    parameters: int = 0
    one_line: str = ""

    @classmethod
    def of(cls, spec: Spec) -> Self:
        """The kind of the backbone that computed features of this spec."""
        names = ("size", "shape", "dtype", "interpolation", "fit", "window", "gap_s", "gap")
        values = {name: getattr(spec, name) for name in (*names, "preprocessing")}
        return cls(name=spec.backbone, has_precisions=True, **values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Weights that can be loaded: from `path`, or made from `seed` where `kind` is "random".

    `hash` is what `Spec.weights` holds: `sha256:<hex>` of the file, or of what code makes (kind "code"),
    `random:<seed>`, or `none`.
    """

    kind: Literal["imagenet", "file", "random", "code", "none"]
    hash: str
    path: Path | None = None
    seed: int = 0

    @classmethod
    def of_file(cls, path: Path, kind: Literal["imagenet", "file"] = "file") -> Self:
        """The weights in a regular file. Raises `OSError`."""
        return cls(kind=kind, hash=f"sha256:{sha256(str(path))}", path=path)

    def __str__(self) -> str:
        return self.hash if self.path is None else f"{self.path} ({self.hash[:19]}…)"


NO_WEIGHTS = Weights(kind="none", hash="none")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """How a backbone is loaded; nothing here changes its features.

    engine: auto, keras, openvino or onnxruntime. batch: frames per call, 0 for what was measured best.
    threads: cores to use, 0 for all. cache: folder of exported models, None for the user's.
    """

    engine: str = "auto"
    batch: int = 0
    threads: int = 0
    cache: Path | None = None


DEFAULT_OPTIONS = LoadOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A family of backbones, registered in `backbones.FAMILIES`.

    kinds: its backbones by name.
    find_weights: (kind, setting, whether to download) → the weights that the setting names; raises
        `WeightsNotFound` or `ConfigError`.
    load: (spec, weights, options) → the backbone, ready to run; the weights' hash is the spec's.
    require: (engine) → raises `ConfigError` where this machine lacks what `load` needs, without
        importing it.
    """

    kinds: Mapping[str, BackboneKind]
    find_weights: Callable[[BackboneKind, str, bool], Weights]
    load: Callable[[Spec, Weights, LoadOptions], Backbone]
    require: Callable[[str], None] = lambda engine: None
