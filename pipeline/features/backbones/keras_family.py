"""The image models of `keras.applications`, on Keras or OpenVINO."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pipeline import engine as engines
from pipeline.errors import ConfigError, WeightsNotFound
from pipeline.features.backbones.family import Backbone, BackboneKind, Family, LoadOptions, Weights
from pipeline.features.backbones.keras_models import KERAS_MODELS, imagenet_file
from pipeline.features.backbones.openvino_engine import available, load_openvino
from pipeline.spec import Spec

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def load(spec: Spec, weights: Weights, options: LoadOptions) -> Backbone:
    """Load a model of `keras.applications` on the engine that the options mean here.

    Raises `ConfigError` where this machine lacks the spec's precision or the engine.
    """
    if spec.precision not in engines.precisions():
        raise ConfigError(
            f"this machine does not compute in {spec.precision}: "
            f"use precision {' or '.join(engines.precisions())}, or a machine that does"
        )
    if choose_engine(options.engine) == "openvino":
        return load_openvino(spec, weights, options)
    engines.require_backend()
    from pipeline.features.backbones.keras_engine import load_keras

    return load_keras(spec, weights, options)


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
    `KERAS_BACKEND`. Imports neither. Raises `ConfigError` for an engine that is not installed.
    """
    if wanted not in ("auto", "keras", "openvino"):
        raise ConfigError(f"engine is {wanted!r}: use auto, keras or openvino")
    if wanted == "openvino" and not available():
        raise ConfigError(
            "engine is 'openvino', which is not installed: "
            'pip install -e ".[cpu]" in the project\'s folder, or use engine keras'
        )
    if wanted != "auto":
        return wanted  # type: ignore[return-value]  # one of the two, as checked
    if engines.device_hint() == "gpu" or engines.backend_is_chosen() or not available():
        return "keras"
    return "openvino"


def find_weights(kind: BackboneKind, setting: str, download: bool) -> Weights:
    """The ImageNet weights, those of a file, or random ones; see `resolve_weights`."""
    if setting == "imagenet":
        return Weights.of_file(imagenet_file(kind.name, download=download), "imagenet")
    if setting == "random" or setting.startswith("random:"):
        seed = setting.partition(":")[2] or "0"
        if not seed.isascii() or not seed.isdigit() or int(seed) >= 2**32:
            raise ConfigError(
                f"weights is {setting!r}: write random:SEED with a whole number from 0 to {2**32 - 1}"
            )
        return Weights(kind="random", hash=f"random:{int(seed)}", seed=int(seed))
    path = Path(setting).expanduser()
    if path.is_dir():
        raise ConfigError(f"weights is {setting!r}, a folder: give the .h5 file inside it")
    try:
        with path.open("rb") as file:
            start = file.read(len(_HDF5_SIGNATURE))
    except FileNotFoundError:
        raise WeightsNotFound(
            f"there is no weights file {setting!r}: set WEIGHTS=path/to/file.h5 to one that "
            "exists, or WEIGHTS=random to run without trained weights"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"the weights file {setting!r} cannot be read ({error.strerror}): "
            "check its path and permissions"
        ) from None
    if start != _HDF5_SIGNATURE:
        raise ConfigError(
            f"{setting!r} is no Keras weights file (its first bytes are not HDF5's): "
            "give a no-top .h5 or .weights.h5 file"
        )
    return Weights.of_file(path.resolve())


FAMILY = Family(
    kinds={
        model.name: BackboneKind(
            name=model.name,
            size=model.size,
            shape=(model.channels,),
            dtype="float16",
            has_precisions=True,
            parameters=model.parameters,
            one_line=f"keras.applications.{model.function} without its top, average-pooled",
        )
        for model in KERAS_MODELS.values()
    },
    find_weights=find_weights,
    load=load,
    require=require_engine,
)
