"""A trained head in a format that others serve, proven to say the same."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import ConfigError
from pipeline.heads.lean import keras
from pipeline.heads.saved import Run
from pipeline.openvino_runtime import openvino, write_openvino

FORMATS = ("saved_model", "onnx", "openvino")
TOLERANCE = 1e-4
NEEDS = {"saved_model": (), "onnx": ("onnx", "tf2onnx", "onnxruntime"), "openvino": ("openvino",)}


def export_run(run: Run, path: Path | str, *, format: str = "saved_model") -> dict[str, Any]:
    """Write a run's head for serving; returns path, format and the largest difference seen.

    Inputs are `features` (n, steps, *shape) float32 and `mask` (n, steps) bool, the output
    (n, classes) probabilities; normalisation is inside. The export is read back and compared with
    the Keras model on random sequences of several lengths (tolerance 1e-4 in probability; bfloat16
    heads are exported as float32, and compared as such).

    Raises `ConfigError` for a format that is unknown, or whose package is not installed, or whose
    export does not say the same.
    """
    path = Path(path)
    if format not in FORMATS:
        raise ConfigError(f"format {format!r} is not known: use {', '.join(FORMATS)}")
    absent = [name for name in NEEDS[format] if importlib.util.find_spec(name) is None]
    if absent:
        raise ConfigError(
            f"the format {format} needs {' and '.join(absent)}: pip install {' '.join(absent)}"
        )
    if path.exists():
        raise ConfigError(f"{path} exists: choose another path for the export")
    if format == "openvino" and path.suffix != ".xml":
        raise ConfigError(f"an OpenVINO model ends in .xml, not {path.name}: name it so")
    model = as_float32(run.model)
    features, mask = _probe(run)
    wanted = np.asarray(model.predict_on_batch({"features": features, "mask": mask}))
    path.parent.mkdir(parents=True, exist_ok=True)
    if format == "openvino":
        write_openvino(model, path)
    else:
        kind = "tf_saved_model" if format == "saved_model" else format
        model.export(str(path), format=kind, verbose=False)
    got = _READERS[format](path, features, mask)
    difference = float(np.abs(got - wanted).max())
    if not difference <= TOLERANCE:
        raise ConfigError(
            f"the {format} export of {run.folder.name} differs from the head by {difference:.1e}: "
            "use another format and report this"
        )
    return {"path": str(path), "format": format, "largest_difference": difference}


def as_float32(model: Any) -> Any:
    """The same head with every layer in float32: other runtimes know no mixed policies."""

    def plain(layer: Any) -> Any:
        config = layer.get_config()
        _set_policy(config)
        return type(layer).from_config(config)

    twin = keras.models.clone_model(model, clone_function=plain)
    twin.set_weights(model.get_weights())
    return twin


def _set_policy(config: Any) -> None:
    """Replace every mixed policy in a layer's configuration, also in layers within layers."""
    if isinstance(config, dict):
        for key, value in config.items():
            mixed = isinstance(value, dict) and value.get("class_name") == "DTypePolicy"
            if key == "dtype" and mixed and value["config"]["name"].startswith("mixed"):
                config[key] = "float32"
            else:
                _set_policy(value)
    elif isinstance(config, list):
        for value in config:
            _set_policy(value)


def _probe(run: Run) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    rng = np.random.default_rng(0)
    lengths = np.unique(np.linspace(1, run.steps, 4).astype(int))
    mask = np.arange(run.steps)[None] < lengths[:, None]
    # Within what the head was trained on: its own normalisation, turned around.
    normalise = next(layer for layer in run.model.layers if hasattr(layer, "scale"))
    deviation = np.where(normalise.scale > 0, 1 / np.maximum(normalise.scale, 1e-30), 0)
    shape = (len(lengths), run.steps, *run.shape)
    noise = rng.normal(size=shape).reshape(len(lengths), run.steps, -1, len(deviation))
    features = (normalise.mean + noise * deviation).reshape(shape).astype(np.float32)
    features[~mask] = 0
    return features, mask


def _read_saved_model(path: Path, features: Any, mask: Any) -> npt.NDArray[Any]:
    layer = keras.layers.TFSMLayer(str(path), call_endpoint="serve")
    return np.asarray(layer({"features": features, "mask": mask}))


def _read_onnx(path: Path, features: Any, mask: Any) -> npt.NDArray[Any]:
    onnxruntime = importlib.import_module("onnxruntime")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    by_rank = {len(entry.shape): entry.name for entry in session.get_inputs()}
    inputs = {by_rank[features.ndim]: features, by_rank[2]: mask}
    return np.asarray(session.run(None, inputs)[0])


def _read_openvino(path: Path, features: Any, mask: Any) -> npt.NDArray[Any]:
    # Float32 on purpose: some CPUs' default is bfloat16, which is not this comparison.
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    model = openvino().Core().compile_model(str(path), "CPU", settings)
    by_rank = {len(entry.partial_shape): entry for entry in model.inputs}
    result = model({by_rank[features.ndim]: features, by_rank[2]: mask})
    return np.asarray(result[model.outputs[0]])


_READERS = {
    "saved_model": _read_saved_model,
    "onnx": _read_onnx,
    "openvino": _read_openvino,
}
