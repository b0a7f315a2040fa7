"""Models of the user's as families: ONNX files, `.keras` files, and what code returns."""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pipeline import engine as engines
from pipeline.errors import ConfigError, SpecMismatch
from pipeline.features.backbones import factories, openvino_engine
from pipeline.features.backbones.family import Backbone, BackboneKind, Family, LoadOptions, Weights
from pipeline.features.backbones.keras_file import keras_facts
from pipeline.features.backbones.model_checks import require_sound
from pipeline.features.backbones.model_facts import ModelFacts, require_model_file
from pipeline.features.backbones.onnx_file import onnx_facts
from pipeline.features.files import sha256
from pipeline.spec import Spec

ONNX, KERAS = "onnx", "keras"
"""What a spec calls the backbone of a model file: its weights are the file's hash, whatever its name."""

Engine = Literal["openvino", "onnxruntime", "keras"]


def facts_of_file(path: Path) -> ModelFacts:
    """What a model file says of itself. Raises `ConfigError`, `WeightsNotFound` if it is not there."""
    path = require_model_file(path)
    return onnx_facts(path) if path.suffix == ".onnx" else keras_facts(path)


def find_weights(kind: BackboneKind, setting: str, download: bool) -> Weights:
    """A model file and its hash: of its bytes, and of those files that it keeps its weights in."""
    path = Path(setting).expanduser()
    if path.suffix != f".{kind.name}":
        raise ConfigError(
            f"these features are those of a .{kind.name} model, and weights is {setting!r}: set "
            f"WEIGHTS=path/to/model.{kind.name}"
        )
    facts = facts_of_file(path)
    path = path.resolve()
    if not facts.files:
        return Weights.of_file(path)
    hashes = "".join(sha256(str(file)) for file in (path, *facts.files))
    digest = hashlib.sha256(hashes.encode()).hexdigest()
    return Weights(kind="file", hash=f"sha256:{digest}", path=path)


_WRITE = {
    ("pt", "pth", "ckpt", "safetensors", "bin", "torchscript"): (
        "load it in PyTorch and write it with torch.onnx.export"
    ),
    ("h5", "hdf5", "weights"): (
        "load it in Keras and write it with model.save('model.keras'), or, if it has weights of a "
        "built-in backbone, give that one's name and this file as --weights"
    ),
    ("pb", "tflite", "savedmodel", "json"): (
        "write it as ONNX, with tf2onnx or model.export(…, format='onnx')"
    ),
    ("xml", "engine", "trt", "mlmodel"): "name the ONNX file that it was made of",
}


def other_file(name: str) -> str:
    """What to do with a name that is that of a file, but of no kind that is read; "" for any other."""
    path = Path(name)
    ending = path.suffix[1:]
    if not ending and not path.is_dir():
        return ""
    near = difflib.get_close_matches(ending.lower(), (ONNX, KERAS), n=1)
    if near:
        return f"if it is one, rename it to {path.with_suffix('.' + near[0])}"
    for endings, remedy in _WRITE.items():
        if ending.lower() in endings or (path.is_dir() and "savedmodel" in endings):
            return remedy
    return "name such a file, or code as package.module:function"


def find_code(kind: BackboneKind, setting: str, download: bool) -> Weights:
    """What code makes, by the hash that was taken when it was first tried; compared when it is loaded."""
    return Weights(kind="code", hash=setting or "none")


def choose_engine(name: str, wanted: str) -> Engine:
    """The engine that runs a model of this backbone here. Raises `ConfigError` for one that cannot."""
    other: Engine = "onnxruntime" if name == ONNX else "keras"
    if wanted not in ("auto", "openvino", other):
        raise ConfigError(
            f"engine is {wanted!r}, which runs no model of this kind: use auto, openvino or {other}"
        )
    openvino = openvino_engine.available()
    if wanted == "openvino" and not openvino:
        raise ConfigError(
            "engine is 'openvino', which is not installed: "
            'pip install -e ".[cpu]" in the project\'s folder, or use engine ' + other
        )
    if wanted == "auto" and openvino and not _on_gpu(name):
        return "openvino"
    if wanted == "openvino":
        return "openvino"
    if other == "onnxruntime" and not _has_onnxruntime():
        raise ConfigError(
            "an ONNX model needs OpenVINO or ONNX Runtime, and "
            + ("neither is installed" if wanted == "auto" else "ONNX Runtime is not installed")
            + ': pip install -e ".[onnx]" in the project\'s folder'
        )
    return other


def _on_gpu(name: str) -> bool:
    if name != ONNX:
        return engines.device_hint() == "gpu" or engines.backend_is_chosen()
    from pipeline.features.backbones.model_onnxruntime import has_gpu

    return has_gpu()


def _has_onnxruntime() -> bool:
    return all(importlib.util.find_spec(name) is not None for name in ("onnx", "onnxruntime"))


def load(spec: Spec, weights: Weights, options: LoadOptions) -> Backbone:
    """Load a model, and check what it gives (`model_checks`).

    Where a step's features differ by roundings with its place in the batch, the model is called with one
    step at a time. Raises `ConfigError` where it cannot be loaded or is no first stage.
    """
    precisions = engines.precisions()
    if spec.precision not in precisions:
        raise ConfigError(
            f"this machine does not compute in {spec.precision}: "
            f"use precision {' or '.join(precisions)}, or a machine that does"
        )
    source = spec.backbone if weights.path is None else repr(str(weights.path))
    backbone = load_unchecked(spec, weights, options)
    if require_sound(backbone, source) or backbone.batch == 1:
        return backbone
    alone = LoadOptions(
        engine=options.engine, batch=1, threads=options.threads, cache=options.cache
    )
    return load_unchecked(spec, weights, alone)


def load_unchecked(spec: Spec, weights: Weights, options: LoadOptions) -> Backbone:
    """The same without a look at what it gives."""
    if spec.preprocessing is None:
        return _load_backbone(spec, weights)
    chosen = choose_engine(spec.backbone, options.engine)
    if chosen == "onnxruntime":
        from pipeline.features.backbones.model_onnxruntime import load_on_onnxruntime

        assert weights.path is not None
        return load_on_onnxruntime(spec, weights.path, options)
    if chosen == "keras":
        engines.require_backend()
        from pipeline.features.backbones.model_keras import (
            keras_model,
            load_on_keras,
            require_digest,
        )

        engines.prepare(options.threads)
        model = keras_model(source_of(spec, weights))
        require_digest(source_of(spec, weights), model, weights.hash)
        return load_on_keras(spec, model, options, software={})
    from pipeline.features.backbones.model_openvino import load_on_openvino

    file, software = openvino_file(spec, weights, options.cache)
    return load_on_openvino(spec, file, options, software=software)


def source_of(spec: Spec, weights: Weights) -> str:
    """Where the model comes from: its file's path, or the code's name."""
    return str(weights.path) if weights.path is not None else spec.backbone


def openvino_file(spec: Spec, weights: Weights, cache: Path | None) -> tuple[Path, dict[str, str]]:
    """The file that OpenVINO reads, and the versions of what wrote it: an ONNX file is read as it is."""
    if spec.backbone == ONNX:
        assert weights.path is not None
        return weights.path, {}
    assert spec.preprocessing is not None
    software = engines.software()
    facts = {
        "model": weights.hash,
        "output": spec.preprocessing.output,
        "software": software | openvino_engine.openvino_software(),
    }
    order = {
        "source": source_of(spec, weights),
        "weights": weights.hash,
        "output": spec.preprocessing.output,
    }
    program = "pipeline.features.backbones.model_keras:export"
    return openvino_engine.exported("model", facts, program, order, cache), software


def _load_backbone(spec: Spec, weights: Weights) -> Backbone:
    made: Any = factories.make(spec.backbone)
    if not isinstance(made, Backbone) or (found := backbone_digest(made)) != weights.hash:
        given = found if isinstance(made, Backbone) else type(made).__name__
        raise SpecMismatch(
            f"{spec.backbone} returns another first stage ({given[:19]}…) than the features were made "
            f"with ({weights.hash[:19]}…): use the code that they were made with, or another STORE"
        )
    return made


def backbone_digest(made: Backbone) -> str:
    """`sha256:<hex>` of what identifies a `Backbone` that code returned."""
    return f"sha256:{hashlib.sha256(factories.source_digest(made)).hexdigest()}"


def _require(name: str) -> Callable[[str], None]:
    def require(engine: str) -> None:
        choose_engine(name, engine)

    return require


FILES = {
    name: Family(kinds={}, find_weights=find_weights, load=load, require=_require(name))
    for name in (ONNX, KERAS)
}
"""The families of model files, by the backbone of their specs."""

CODE = Family(kinds={}, find_weights=find_code, load=load)
"""The family of what code returns."""
