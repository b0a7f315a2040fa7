"""What one family of backbones registers: its kinds, where their weights are, how one is loaded.

A plan needs a backbone's frame size, the shape of one step and its weights' hash long before a worker
loads it, so a family's module imports Keras and other runtimes only inside `load`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from pipeline.features.backbones.protocol import Backbone
from pipeline.features.files import sha256
from pipeline.spec import Dtype, Spec


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneKind:
    """What one backbone reads and gives.

    Frames are fitted to `size` × `size` pixels with `interpolation`; one step is `shape` of `dtype`.
    Whole numbers (uint8) are stored as such; a store of others has the type that the run's `--dtype`
    names. `has_precisions` is false where values are always computed in float32 (or not computed at
    all), so that `auto` precision means float32. `one_line` is for a list that people read.
    """

    name: str
    size: int
    shape: tuple[int, ...]
    dtype: Dtype
    interpolation: str = "area"
    needs_weights: bool = True
    has_precisions: bool = False
    one_line: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Weights that can be loaded: from `path`, or made from `seed` where `kind` is "random".

    `hash` is what `Spec.weights` holds: `sha256:<hex>` of the file, `random:<seed>`, or `none`.
    """

    kind: Literal["imagenet", "file", "random", "none"]
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

    engine: auto, keras or openvino. batch: frames per call, 0 for what was measured best. threads:
    cores to use, 0 for all. cache: folder of exported models, None for the user's.
    """

    engine: str = "auto"
    batch: int = 0
    threads: int = 0
    cache: Path | None = None


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
