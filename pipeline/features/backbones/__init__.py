"""The registry of first stages: `describe` one without loading it, `load` one ready to run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipeline import engine as engines
from pipeline.errors import ConfigError, SpecMismatch
from pipeline.features.backbones.frames import FramesBackbone
from pipeline.features.backbones.kinds import BackboneKind, backbone_names, describe
from pipeline.features.backbones.openvino_engine import available, load_openvino
from pipeline.features.backbones.protocol import Backbone

if TYPE_CHECKING:
    from pipeline.features.weights import Weights
    from pipeline.spec import Spec

__all__ = [
    "Backbone",
    "BackboneKind",
    "Engine",
    "backbone_names",
    "choose_engine",
    "describe",
    "load",
    "require_engine",
]

Engine = Literal["auto", "keras", "openvino"]


def load(
    spec: Spec,
    weights: Weights | None,
    *,
    engine: str = "auto",
    batch: int = 0,
    threads: int = 0,
    cache: Path | None = None,
) -> Backbone:
    """Load the backbone of a spec, ready to run.

    `weights` are what `resolve_weights` found (None for a backbone that has none), `engine` one of
    auto, keras, openvino, `batch` the frames per call and `threads` the cores to use (0: what was
    measured best; all of them), `cache` the folder for exported models (None: the user's cache).

    Raises `SpecMismatch` where the weights are not those of the spec, and `ConfigError` where this
    machine lacks the spec's precision or the engine.
    """
    kind = describe(spec.backbone)
    if kind.family == "frames":
        return FramesBackbone(size=spec.size)
    if weights is None or weights.hash != spec.weights:
        found = "no weights" if weights is None else f"weights {weights.hash}"
        raise SpecMismatch(
            f"the spec names weights {spec.weights}, and {found} were given: "
            "set WEIGHTS to the file that the spec was made with"
        )
    if kind.family == "pose":
        from pipeline.features.backbones.pose import load_pose

        return load_pose(spec, weights, threads=threads)
    if spec.precision not in engines.precisions():
        raise ConfigError(
            f"this machine does not compute in {spec.precision}: "
            f"use precision {' or '.join(engines.precisions())}, or a machine that does"
        )
    require_engine(engine)
    if choose_engine(engine) == "openvino":
        return load_openvino(spec, weights, batch=batch, threads=threads, cache=cache)
    from pipeline.features.backbones.keras_engine import load_keras

    return load_keras(spec, weights, batch=batch, threads=threads, cache=cache)


def require_engine(wanted: str = "auto") -> None:
    """Raise `ConfigError` where this machine lacks what the engine needs. Imports neither.

    OpenVINO needs Keras' backend only to export a model that is not in the cache yet; the export
    says so then.
    """
    if choose_engine(wanted) == "keras":
        engines.require_backend()


def choose_engine(wanted: str = "auto") -> Literal["keras", "openvino"]:
    """The engine that `load` would use: OpenVINO on a CPU where it is installed, else Keras.

    `auto` keeps to Keras where a GPU answers or where the user chose its backend by
    `KERAS_BACKEND`. Imports neither. Raises `ConfigError` for an engine that is not there.
    """
    if wanted == "keras":
        return "keras"
    if wanted == "openvino":
        if not available():
            raise ConfigError(
                "engine is 'openvino', which is not installed: "
                'pip install -e ".[cpu]" in the project\'s folder, or use engine keras'
            )
        return "openvino"
    if wanted != "auto":
        raise ConfigError(f"engine is {wanted!r}: use auto, keras or openvino")
    if engines.device_hint() == "gpu" or engines.backend_is_chosen() or not available():
        return "keras"
    return "openvino"
