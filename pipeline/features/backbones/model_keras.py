"""A user's Keras model, of a `.keras` file or of code: loaded, wrapped, hashed, written for OpenVINO."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import engine
from pipeline.errors import ConfigError, first_line
from pipeline.features.backbones.factories import make
from pipeline.features.backbones.family import BackboneKind, LoadOptions
from pipeline.features.backbones.keras_engine import (
    Function,
    KerasBackbone,
    usual_batch,
)
from pipeline.features.backbones.model_facts import ModelFacts, Tensor
from pipeline.features.backbones.model_openvino import linear
from pipeline.features.backbones.model_settling import pooled_axes
from pipeline.openvino_runtime import write_openvino
from pipeline.spec import Spec


def keras_model(source: str) -> Any:
    """The model of a `.keras` file, in Keras' safe mode, or the one that code returns.

    Raises `ConfigError` where it cannot be loaded.
    """
    engine.prepare()
    import keras

    if not source.endswith(".keras"):
        # Layers are numbered from the first again: names are part of the model's digest.
        keras.utils.clear_session()
        return make(source)
    try:
        return keras.saving.load_model(source, compile=False, safe_mode=True)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file fails in zipfile, HDF5, JSON or Keras alike
        raise ConfigError(
            f"{source!r} cannot be loaded ({first_line(error)}): save the model again, or give "
            "package.module:function, which builds it"
        ) from None


def model_digest(model: Any) -> str:
    """`sha256:<hex>` of a Keras model's configuration and of every weight's name, shape and bytes."""
    import keras

    try:
        config = json.dumps(model.get_config(), sort_keys=True, default=str)
    except NotImplementedError:  # a subclass that cannot be saved
        config = type(model).__qualname__
    digest = hashlib.sha256(config.encode())
    for weight in model.weights:
        array = np.ascontiguousarray(keras.ops.convert_to_numpy(weight))
        digest.update(json.dumps([weight.path, list(array.shape), str(array.dtype)]).encode())
        digest.update(array.tobytes())
    return f"sha256:{digest.hexdigest()}"


def facts_of(model: Any) -> ModelFacts:
    """Inputs and outputs with their shapes, and the number of parameters."""
    try:
        inputs, outputs = model.inputs, model.outputs
    except (AttributeError, ValueError):
        inputs = outputs = None
    if not inputs or not outputs:
        raise ConfigError(
            f"the model {model.name} does not say what it reads: return a functional model, keras.Model("
            "inputs, outputs)"
        )
    return ModelFacts(
        inputs=tuple(Tensor(name=x.name, shape=tuple(x.shape), dtype=str(x.dtype)) for x in inputs),
        outputs=tuple(
            Tensor(name=name, shape=tuple(x.shape), dtype=str(x.dtype))
            for name, x in zip(output_names(model), outputs, strict=True)
        ),
        parameters=int(model.count_params()),
    )


def output_names(model: Any) -> list[str]:
    """A name for each output: of the layer that makes it, as a `.keras` file has it."""
    names = getattr(model, "output_names", None)
    return (
        list(names)
        if names and len(names) == len(model.outputs)
        else [x.name for x in model.outputs]
    )


def wrapped(model: Any, kind: BackboneKind, batch: int | None = None) -> Any:
    """(batch, size, size, 3) uint8 frames, or windows of them → float32 features, as one Keras model."""
    import keras

    pre = kind.preprocessing
    assert pre is not None
    ops = keras.ops
    window = (kind.window,) if kind.window > 1 else ()
    shape = (*window, kind.size, kind.size, 3)
    frames = keras.Input(shape, batch_size=batch, dtype="uint8", name="frames")
    x = ops.flip(frames, -1) if pre.color == "BGR" else frames
    scale, offset = linear(pre)
    if (scale != 1).any() or (offset != 0).any():
        x = ops.cast(x, "float32") * scale + offset
    x = ops.cast(x, str(model.inputs[0].dtype))
    axes = "NTHWC" if "T" in pre.layout else "NHWC"
    if "T" in axes and not window:
        x = ops.expand_dims(x, 1)
    if axes != pre.layout:
        x = ops.transpose(x, [axes.index(axis) for axis in pre.layout])
    outputs = dict(zip(output_names(model), _called(model, x), strict=True))
    y = outputs.get(pre.output, next(iter(outputs.values())))
    places = pooled_axes(tuple(y.shape), pre.layout)
    if pre.pool == "mean" and places:
        y = ops.mean(y, places)
    elif pre.pool == "max" and places:
        y = ops.max(y, places)
    elif pre.pool == "first":
        y = y[:, 0]
    return keras.Model(frames, keras.layers.Activation("linear", dtype="float32")(y))


def _called(model: Any, x: Any) -> list[Any]:
    outputs = model(x, training=False)
    if isinstance(outputs, dict):
        return [outputs[name] for name in output_names(model)]
    return list(outputs) if isinstance(outputs, list | tuple) else [outputs]


def load_on_keras(
    spec: Spec, model: Any, options: LoadOptions, *, software: dict[str, str]
) -> KerasBackbone:
    """Compile a model with the spec's preprocessing on Keras' backend. Raises on other precisions."""
    if spec.precision != "float32":
        raise ConfigError(
            f"Keras computes a model of your own as it was saved, not in {spec.precision}: "
            "use --engine openvino, or precision float32 with another STORE"
        )
    fixed = model.inputs[0].shape[0]
    batch = fixed or options.batch or max(2, usual_batch() // spec.window)
    whole = wrapped(model, BackboneKind.of(spec), fixed)

    def compile_for(frames: int) -> Function:
        return engine.compiled(whole, (frames, *backbone.batch_shape[1:]), dtype="uint8")

    backbone = KerasBackbone(
        spec, compile_for, batch=batch, software={**software, **engine.software()}
    )
    backbone(np.zeros(backbone.batch_shape, np.uint8))
    return backbone


def export(order: dict[str, Any]) -> None:
    """Write the model of `order["source"]`, with its chosen output alone, for OpenVINO.

    Raises `ConfigError` where code made another model than the one whose digest is `order["weights"]`.
    """
    import keras

    model = keras_model(order["source"])
    require_digest(order["source"], model, order["weights"])
    outputs = dict(zip(output_names(model), model.outputs, strict=True))
    if len(outputs) > 1:
        model = keras.Model(model.inputs, outputs[order["output"]])
    write_openvino(model, Path(order["xml"]))


def require_digest(source: str, model: Any, wanted: str) -> None:
    """Raise `ConfigError` where the model that code returns is not the one that was hashed."""
    if source.endswith(".keras") or model_digest(model) == wanted:
        return
    raise ConfigError(
        f"{source} returns another model than the one of {wanted[:19]}…: give it the same weights at "
        "every call (a seed, or a file), or use another STORE for this one"
    )
