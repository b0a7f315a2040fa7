"""A `.keras` file read as far as its inputs and layers, without Keras.

It is a zip file (https://keras.io/guides/serialization_and_saving): `config.json` names every layer by
module, class and registered name. What would run code of its author's is refused here, long before Keras.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.features.backbones.model_facts import ModelFacts, Tensor

_MOST_CONFIG_BYTES = 256 << 20
_FACTORY = "give package.module:function instead, which builds the model with your own code"


def keras_facts(path: Path) -> ModelFacts:
    """Inputs and outputs of a `.keras` file; of outputs the names alone.

    Raises `ConfigError` for a file that is none, and for layers that only its author's code can make:
    Lambda layers and classes that are not Keras' own.
    """
    config = _config(path)
    layers = list(_layers(config))
    _require_own_layers(path, layers)
    named = config.get("config", {})
    inputs = [_input(layer["config"]) for layer in layers if layer["class_name"] == "InputLayer"]
    wanted = [name for name, *_ in _references(named.get("input_layers"))]
    if wanted:
        inputs = [tensor for tensor in inputs if tensor.name in wanted]
    elif not inputs and (shape := (config.get("build_config") or {}).get("input_shape")):
        inputs = [Tensor(name="input", shape=tuple(shape), dtype="float32")]
    if not inputs:
        raise ConfigError(
            f"{str(path)!r} does not say what its model reads: save a functional model (keras.Model "
            f"of inputs and outputs), or {_FACTORY}"
        )
    outputs = [name for name, *_ in _references(named.get("output_layers"))] or ["output"]
    return ModelFacts(inputs=tuple(inputs), outputs=tuple(Tensor(name=name) for name in outputs))


def _config(path: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as file:
            if file.getinfo("config.json").file_size > _MOST_CONFIG_BYTES:
                raise ValueError
            config = json.loads(file.read("config.json"))
        if isinstance(config, dict) and "class_name" in config:
            return config
    except OSError as error:
        raise ConfigError(
            f"the model file {str(path)!r} cannot be read ({error.strerror}): "
            "check its path and permissions"
        ) from None
    except (zipfile.BadZipFile, KeyError, ValueError):
        pass
    raise ConfigError(
        f"{str(path)!r} is no Keras model, or a damaged one: save it again by model.save('name.keras')"
    )


def _layers(config: Any) -> Iterator[dict[str, Any]]:
    """Every object of the configuration that names its class, those within others too."""
    if isinstance(config, dict):
        if isinstance(config.get("class_name"), str) and isinstance(config.get("config"), dict):
            yield config
        for value in config.values():
            yield from _layers(value)
    elif isinstance(config, list):
        for value in config:
            yield from _layers(value)


def _require_own_layers(path: Path, layers: list[dict[str, Any]]) -> None:
    for layer in layers:
        name = str(layer["config"].get("name", "without a name"))
        if layer["class_name"] in ("Lambda", "__lambda__"):
            raise ConfigError(
                f"{str(path)!r} has a Lambda layer ({name}), whose code would be run from the file: "
                f"{_FACTORY}"
            )
        module = str(layer.get("module") or "")
        if module and module.split(".")[0] not in ("keras", "builtins"):
            raise ConfigError(
                f"{str(path)!r} has a layer of the class {module}.{layer['class_name']} ({name}), which "
                f"is not Keras' own: {_FACTORY}"
            )
        if not module and layer.get("registered_name") and "module" in layer:
            raise ConfigError(
                f"{str(path)!r} has a layer of the class {layer['registered_name']} ({name}), which "
                f"is not Keras' own: {_FACTORY}"
            )


def _input(config: dict[str, Any]) -> Tensor:
    dtype = config.get("dtype", "float32")
    if isinstance(dtype, dict):  # a policy
        dtype = dtype.get("config", {}).get("name", "float32")
    shape = config.get("batch_shape") or config.get("batch_input_shape")
    return Tensor(
        name=str(config.get("name", "input")),
        shape=None if shape is None else tuple(shape),
        dtype=str(dtype),
    )


def _references(layers: Any) -> Iterator[list[Any]]:
    """Layers by [name, node, tensor]: a list of such, or one alone."""
    if not isinstance(layers, list):
        return
    if layers and isinstance(layers[0], str):
        yield layers
        return
    for layer in layers:
        yield from _references(layer)
