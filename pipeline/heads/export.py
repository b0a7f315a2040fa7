"""A trained head in a format for serving, compared with the Keras model before it is kept."""

from __future__ import annotations

import importlib
import importlib.util
import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import ConfigError, first_line
from pipeline.heads.layers import PACKAGE, Standardise
from pipeline.heads.lean import keras
from pipeline.heads.saved import Run
from pipeline.heads.source import Array, Float32, Mask
from pipeline.openvino_runtime import openvino, write_openvino, write_rt_info
from pipeline.plain import json_text, write_json

FORMATS = ("saved_model", "onnx", "openvino")
TOLERANCE = 1e-4
SIDECAR = "pixels_once.json"
RUNTIMES = {"saved_model": "TensorFlow", "onnx": "ONNX Runtime", "openvino": "OpenVINO"}
OPTIONS = {"openvino": {"INFERENCE_PRECISION_HINT": "f32"}}
"""What makes a runtime compute in float32: OpenVINO's default on some CPUs is bfloat16."""
NEEDS = {"saved_model": (), "onnx": ("onnx", "tf2onnx", "onnxruntime"), "openvino": ("openvino",)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """How an export was compared with its head, and the result."""

    runtime: str
    options: Mapping[str, str]
    lengths: tuple[int, ...]
    trained_in: str
    largest_difference: float

    def __str__(self) -> str:
        of = "" if self.trained_in == "float32" else f" (trained in {self.trained_in})"
        steps = ", ".join(map(str, self.lengths))
        return (
            f"{self.runtime} in float32 gives the probabilities of the head in float32{of} on random "
            f"sequences of {steps} real steps, to {self.largest_difference:.1e}"
        )


def export_run(run: Run, path: Path | str, *, format: str = "saved_model") -> dict[str, Any]:
    """Write a run's head for serving; returns path, format, beside (a JSON file) and the comparison.

    Inputs are `features` (n, steps, *shape) float32 and `mask` (n, steps) bool, the output
    (n, classes) probabilities; normalisation is inside. The export is read back and compared with
    the Keras model on random sequences of several lengths (tolerance 1e-4 in probability; bfloat16
    heads are exported as float32, and compared as such). The JSON file beside it holds what is needed to
    serve it: labels, spec and preprocessing, and with which options it was compared;
    ONNX and OpenVINO files carry the same within (`write_metadata`).
    Nothing is left under `path` unless all of it succeeded.

    Raises `ConfigError` for a format that is unknown, or whose package is not installed, or into
    which this head cannot be converted, or whose export predicts something else.
    """
    path = Path(path)
    _require(run, format, path)
    beside = path / SIDECAR if format == "saved_model" else path.with_suffix(".json")
    description, options = _description(run), OPTIONS.get(format, {})
    model = for_inference(run.model)
    features, mask = _probe(run)
    wanted = np.asarray(model.predict_on_batch({"features": features, "mask": mask}))
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as making:
        export = Path(making) / path.name
        try:
            _WRITERS[format](model, export)
            write_metadata(export, format, description | {"runtime_options": options})
            got = _READERS[format](export, features, mask)
        except Exception as error:  # every converter has errors of its own
            raise ConfigError(
                f"{run.folder.name} cannot be exported as {format} "
                f"({first_line(error, most=160)}): use another format"
            ) from error
        difference = float(np.abs(got - wanted).max())
        if not difference <= TOLERANCE:
            raise ConfigError(
                f"the {format} export of {run.folder.name} differs from the head by "
                f"{difference:.1e}: use another format and report this"
            )
        compared = Compared(
            runtime=RUNTIMES[format],
            options=options,
            lengths=tuple(int(n) for n in mask.sum(axis=1)),
            trained_in=_trained_in(run.model),
            largest_difference=difference,
        )
        sidecar = Path(making) / beside.relative_to(path.parent)
        write_json(sidecar, description | {"compared": asdict(compared)})
        # The model's own file is moved last: where it is, all that belongs to it is too.
        for entry in sorted(Path(making).iterdir(), key=lambda entry: entry.name == path.name):
            entry.rename(path.parent / entry.name)
    return {
        "path": str(path),
        "format": format,
        "beside": str(beside),
        "largest_difference": difference,
        "compared": str(compared),
    }


def _require(run: Run, format: str, path: Path) -> None:
    if run.per_step:
        raise ConfigError(
            f"{run.folder.name} labels every step of videos of any length, and exports are of heads with "
            "one length: use `predict --timeline`, or its model.keras"
        )
    if format not in FORMATS:
        raise ConfigError(f"format {format!r} is not known: use {', '.join(FORMATS)}")
    absent = [name for name in NEEDS[format] if importlib.util.find_spec(name) is None]
    if absent:
        raise ConfigError(
            f"the format {format} needs {' and '.join(absent)}: pip install {' '.join(absent)}"
        )
    written = [path]
    if format == "openvino":
        if path.suffix != ".xml":
            raise ConfigError(f"an OpenVINO model ends in .xml, not {path.name}: name it so")
        written.append(path.with_suffix(".bin"))
    if format != "saved_model":
        written.append(path.with_suffix(".json"))
    there = [each for each in written if each.exists()]
    if there:
        raise ConfigError(f"{there[0]} exists: choose another path for the export")


_READ = {
    False: "features as the spec's first stage makes them",
    True: "skeletons (pipeline.heads.skeleton.skeletons) of the landmarks of the spec's first stage",
}


_JOINED = (
    "the features of all streams beside each other, at the steps of the first and there of the nearest "
    "step in time (streams: start to stop are each one's channels; skeleton: as "
    "pipeline.heads.skeleton makes them)"
)


def _description(run: Run) -> dict[str, Any]:
    return {
        "format": "pixels-once/export",
        "format_version": 1,
        "run": run.folder.name,
        "labels": list(run.classes),
        "inputs": {
            "features": {"shape": [None, run.steps, *run.model_shape], "dtype": "float32"},
            "mask": {"shape": [None, run.steps], "dtype": "bool", "means": "true: a real step"},
        },
        "output": {"shape": [None, len(run.classes)], "is": "probabilities, in the labels' order"},
        "preprocessing": f"{_JOINED if run.streams else _READ[run.skeleton]}; normalisation is inside",
        **({"streams": [stream.to_dict() for stream in run.streams]} if run.streams else {}),
        "spec": dict(run.spec),
        "fingerprint": run.fingerprint,
        "first_stage": dict(run.first_stage),
        "digest": run.metrics.get("digest", ""),
    }


def _trained_in(model: Any) -> str:
    names = {str(layer.dtype_policy.name) for layer in model._flatten_layers(include_self=False)}
    return next((name for name in sorted(names) if name.startswith("mixed")), "float32")


def for_inference(model: Any) -> Any:
    """The same head in float32 and without what acts in training only.

    Other runtimes know no mixed policies, no random states, and ONNX not TensorFlow's GELU. Recurrent
    layers are Keras' own: their loops are known to converters, OpenVINO wants ConvLSTM's unrolled.
    """

    def plain(layer: Any) -> Any:
        if isinstance(layer, keras.layers.Dropout):
            return keras.layers.Identity(name=layer.name)
        config = layer.get_config()
        _for_inference(config)
        if isinstance(layer, keras.layers.ConvLSTM2D):
            config["unroll"] = True
        own = (keras.layers.LSTM, keras.layers.GRU, keras.layers.ConvLSTM2D)
        kind = next((kind for kind in own if isinstance(layer, kind)), type(layer))
        return kind.from_config(config)

    twin = keras.models.clone_model(model, clone_function=plain, recursive=True)
    twin.set_weights(model.get_weights())
    return twin


@keras.saving.register_keras_serializable(PACKAGE)  # type: ignore[untyped-decorator]
def gelu(x: Any) -> Any:
    """x · Φ(x) by the error function, as Keras' exact `gelu`."""
    return 0.5 * x * (1.0 + keras.ops.erf(x / math.sqrt(2.0)))


def _for_inference(config: Any) -> None:
    """Change a layer's configuration in place, also in layers within layers."""
    if isinstance(config, dict):
        for key, value in config.items():
            mixed = isinstance(value, dict) and value.get("class_name") == "DTypePolicy"
            if key == "dtype" and mixed and value["config"]["name"].startswith("mixed"):
                config[key] = "float32"
            elif key in ("dropout", "recurrent_dropout"):
                config[key] = 0.0
            elif key == "activation" and value == "gelu":
                config[key] = gelu
            elif key == "registered_name" and value in (f"{PACKAGE}>LSTM", f"{PACKAGE}>GRU"):
                config |= {"module": "keras.layers", key: None}
            else:
                _for_inference(value)
    elif isinstance(config, list):
        for value in config:
            _for_inference(value)


def _probe(run: Run) -> tuple[Float32, Mask]:
    rng = np.random.default_rng(0)
    lengths = np.unique(np.linspace(1, run.steps, 4).astype(int))
    mask = np.arange(run.steps)[None] < lengths[:, None]
    # Within what the head was trained on: its own normalisation, turned around.
    mean, scale = _normalisation(run.model)
    deviation = np.where(scale > 0, 1 / np.maximum(scale, 1e-30), 0)
    shape = (len(lengths), run.steps, *run.model_shape)
    noise = rng.normal(size=shape).reshape(len(lengths), run.steps, -1, len(deviation))
    features = (mean + noise * deviation).reshape(shape).astype(np.float32)
    features[~mask] = 0
    return features, mask


def _normalisation(model: Any) -> tuple[Array, Array]:
    """Mean and scale that a model normalises by; of streams that are joined late, those of each."""
    own = next((layer for layer in model.layers if isinstance(layer, Standardise)), None)
    if own is not None:
        return own.mean, own.scale
    channels = int(next(x.shape[-1] for x in model.inputs if x.name == "features"))
    mean, scale = np.zeros(channels, np.float32), np.ones(channels, np.float32)
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            of = model.get_layer(layer.name.replace("head", "channels"))
            mean[of.start : of.stop], scale[of.start : of.stop] = _normalisation(layer)
    return mean, scale


def _by_keras(format: str) -> Callable[[Any, Path], None]:
    return lambda model, path: model.export(str(path), format=format, verbose=False)


def _read_saved_model(path: Path, features: Any, mask: Any) -> Array:
    layer = keras.layers.TFSMLayer(str(path), call_endpoint="serve")
    return np.asarray(layer({"features": features, "mask": mask}))


def _read_onnx(path: Path, features: Any, mask: Any) -> Array:
    onnxruntime = importlib.import_module("onnxruntime")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    by_rank = {len(entry.shape): entry.name for entry in session.get_inputs()}
    inputs = {by_rank[features.ndim]: features, by_rank[2]: mask}
    return np.asarray(session.run(None, inputs)[0])


def _read_openvino(path: Path, features: Any, mask: Any) -> Array:
    # Float32 on purpose: some CPUs' default is bfloat16, which is not this comparison.
    model = openvino().Core().compile_model(str(path), "CPU", OPTIONS["openvino"])
    by_rank = {len(entry.partial_shape): entry for entry in model.inputs}
    result = model({by_rank[features.ndim]: features, by_rank[2]: mask})
    return np.asarray(result[model.outputs[0]])


_WRITERS = {
    "saved_model": _by_keras("tf_saved_model"),
    "onnx": _by_keras("onnx"),
    "openvino": write_openvino,
}
_READERS = {"saved_model": _read_saved_model, "onnx": _read_onnx, "openvino": _read_openvino}


def write_metadata(path: Path, format: str, description: Mapping[str, Any]) -> None:
    """Write labels, spec and preprocessing into an export, as in the JSON file beside it.

    Every value is JSON text. ONNX holds them in `metadata_props` as `pixels_once.NAME`, OpenVINO in
    `rt_info` under `pixels_once`. A SavedModel is a folder, in which the JSON file lies.

    Nothing in a model's file makes OpenVINO's CPU plugin compute in float32 where it chooses bfloat16
    (2026.4, with AMX). `runtime_options` has the option for programs that read it there, and
    `pixels_once` as what must be passed to `compile_model`.
    """
    texts = {name: json_text(value) for name, value in description.items()}
    if format == "openvino":
        options = description.get("runtime_options", {})
        values: dict[tuple[str, ...], str] = {(PACKAGE, name): text for name, text in texts.items()}
        values |= {("runtime_options", str(name)): str(value) for name, value in options.items()}
        write_rt_info(path, values)
    elif format == "onnx":
        onnx = importlib.import_module("onnx")
        model = onnx.load(str(path))
        onnx.helper.set_model_props(model, {f"{PACKAGE}.{k}": text for k, text in texts.items()})
        onnx.save(model, str(path))
