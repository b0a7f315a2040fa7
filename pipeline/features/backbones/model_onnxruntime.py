"""A user's ONNX model on ONNX Runtime (extra `onnx`): on a GPU where it finds one, else on the CPU."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import engine
from pipeline.errors import ConfigError, first_line
from pipeline.features.backbones.family import Backbone, BackboneKind, LoadOptions, padded
from pipeline.features.backbones.model_openvino import linear
from pipeline.features.backbones.model_settling import pooled_axes
from pipeline.spec import Preprocessing, Spec

_ENTERS, _LEAVES = "pixels-once-frames", "pixels-once-features"
"""The input and the output of the whole graph: names that no model has."""

_CPU_BATCH, _GPU_BATCH = 8, 128
_GPU_CALLERS = 2
"""While one caller's frames are computed, another's are copied in."""


class OnnxRuntimeBackbone(Backbone):
    """A session of ONNX Runtime, which several threads may call."""

    def __init__(self, spec: Spec, session: Any, *, batch: int, gpu: bool) -> None:
        super().__init__(
            spec,
            engine="onnxruntime-cuda" if gpu else "onnxruntime",
            batch=batch,
            concurrency=_GPU_CALLERS if gpu else 1,
            software={"onnxruntime": str(importlib.import_module("onnxruntime").__version__)},
        )
        self._session = session

    def features_of(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n, *shape) float32."""
        (features,) = self._session.run(None, {_ENTERS: padded(frames, self.batch)})
        return np.asarray(features[: len(frames)], np.float32)


def available() -> bool:
    """Whether ONNX Runtime and what it needs are installed; neither is imported."""
    return all(importlib.util.find_spec(name) is not None for name in ("onnx", "onnxruntime"))


def has_gpu() -> bool:
    """Whether ONNX Runtime is installed with its GPU part, and a GPU answers."""
    if engine.device_hint() != "gpu" or not available():
        return False
    return (
        "CUDAExecutionProvider" in importlib.import_module("onnxruntime").get_available_providers()
    )


def load_on_onnxruntime(spec: Spec, file: Path, options: LoadOptions) -> OnnxRuntimeBackbone:
    """A session of a model file with the spec's preprocessing in its graph, which has run once.

    Raises `ConfigError` on a precision other than float32, and where ONNX Runtime cannot run it.
    """
    if spec.precision != "float32":
        raise ConfigError(
            f"ONNX Runtime computes {str(file)!r} in float32, not in {spec.precision}: "
            "use --engine openvino, or precision float32 with another STORE"
        )
    runtime = importlib.import_module("onnxruntime")
    gpu = has_gpu()
    usual = (_GPU_BATCH if gpu else _CPU_BATCH) // spec.window
    wanted = options.batch or max(2, usual)
    model, batch = _processed(file, BackboneKind.of(spec), wanted)
    settings = runtime.SessionOptions()
    settings.intra_op_num_threads = options.threads or engine.cores()
    settings.log_severity_level = 4
    providers = ["CUDAExecutionProvider"] * gpu + ["CPUExecutionProvider"]
    try:
        session = runtime.InferenceSession(
            model.SerializeToString(), sess_options=settings, providers=providers
        )
        backbone = OnnxRuntimeBackbone(spec, session, batch=batch, gpu=gpu)
        backbone(np.zeros((1, *backbone.batch_shape[1:]), np.uint8))
    except Exception as error:  # its classes are made at run time, and derive from Exception alone
        raise _refused(file, error) from None
    return backbone


def output_shapes(file: Path, kind: BackboneKind) -> dict[str, tuple[int | None, ...]]:
    """The shape of every output for frames of this kind, as ONNX's shape inference finds it."""
    onnx = importlib.import_module("onnx")
    model, _ = _fixed(file, kind, 2)
    try:
        model = onnx.shape_inference.infer_shapes(model)
    except Exception as error:
        raise _refused(file, error) from None
    shapes = {}
    for output in model.graph.output:
        if output.type.tensor_type.HasField("shape"):
            axes = output.type.tensor_type.shape.dim
            shapes[output.name] = tuple(axis.dim_value or None for axis in axes)
    return shapes


def _fixed(file: Path, kind: BackboneKind, batch: int) -> tuple[Any, int]:
    """The model with every axis of its input fixed, and its batch."""
    assert kind.preprocessing is not None
    onnx = importlib.import_module("onnx")
    try:
        model = onnx.load(str(file))
    except Exception as error:
        raise _refused(file, error) from None
    weights = {tensor.name for tensor in model.graph.initializer}
    image = next(value for value in model.graph.input if value.name not in weights)
    layout = kind.preprocessing.layout
    axes = image.type.tensor_type.shape.dim
    batch = axes[layout.index("N")].dim_value or batch
    lengths = {"N": batch, "T": kind.window, "C": 3, "H": kind.size, "W": kind.size}
    for axis, name in zip(axes, layout, strict=True):
        axis.dim_value = lengths[name]
    # Those of the outputs were inferred for the axes as they were left open.
    for value in model.graph.output:
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param:
                axis.Clear()
    del model.graph.value_info[:]
    return model, batch


def _processed(file: Path, kind: BackboneKind, batch: int) -> tuple[Any, int]:
    """The model with its preprocessing before and its pooling behind, and its batch."""
    onnx = importlib.import_module("onnx")
    pre = kind.preprocessing
    assert pre is not None
    model, batch = _fixed(file, kind, batch)
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    image = next(value for value in graph.input if value.name not in weights)
    output = next((value for value in graph.output if value.name == pre.output), graph.output[0])
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=13)
    nodes = _entering(onnx, graph, pre, image, window=kind.window > 1)
    for node in reversed(nodes):
        graph.node.insert(0, node)
    graph.node.extend(_leaving(onnx, output, pre, graph, opset))
    window = [kind.window] if kind.window > 1 else []
    shape = [batch, *window, kind.size, kind.size, 3]
    graph.input.remove(image)
    make = onnx.helper.make_tensor_value_info
    graph.input.append(make(_ENTERS, onnx.TensorProto.UINT8, shape))
    del graph.output[:]
    graph.output.append(make(_LEAVES, onnx.TensorProto.FLOAT, None))
    return model, batch


def _entering(onnx: Any, graph: Any, pre: Preprocessing, image: Any, *, window: bool) -> list[Any]:
    """Nodes from `frames` to the model's own input."""
    scale, offset = linear(pre)
    nodes: list[Any] = []
    make = onnx.helper.make_node
    name = _ENTERS

    def then(operator: str, *others: str, **attributes: Any) -> None:
        nonlocal name
        made = f"pixels-once-{len(nodes)}"
        nodes.append(make(operator, [name, *others], [made], **attributes))
        name = made

    def constant(label: str, value: NDArray[Any]) -> str:
        graph.initializer.append(onnx.numpy_helper.from_array(value, f"pixels-once-{label}"))
        return f"pixels-once-{label}"

    if pre.color == "BGR":
        then("Gather", constant("order", np.array([2, 1, 0], np.int64)), axis=-1)
    then("Cast", to=onnx.TensorProto.FLOAT)
    then("Mul", constant("scale", scale))
    then("Add", constant("offset", offset))
    then("Cast", to=image.type.tensor_type.elem_type)
    axes = "NTHWC" if "T" in pre.layout else "NHWC"
    if "T" in axes and not window:
        then("Unsqueeze", constant("axis", np.array([1], np.int64)))
    then("Transpose", perm=[axes.index(axis) for axis in pre.layout])
    nodes[-1].output[0] = image.name
    return nodes


def _leaving(onnx: Any, output: Any, pre: Preprocessing, graph: Any, opset: int) -> list[Any]:
    """Nodes from the model's own output to `features`."""
    make = onnx.helper.make_node
    rank = len(output.type.tensor_type.shape.dim)
    cast = make("Cast", [output.name], ["pixels-once-floats"], to=onnx.TensorProto.FLOAT)
    axes = pooled_axes((0,) * rank, pre.layout)
    if pre.pool == "first":
        zero = onnx.numpy_helper.from_array(np.array(0, np.int64), "pixels-once-first")
        graph.initializer.append(zero)
        last = make("Gather", [cast.output[0], zero.name], [_LEAVES], axis=1)
    elif pre.pool == "none" or not axes:
        last = make("Identity", [cast.output[0]], [_LEAVES])
    else:
        operator = "ReduceMean" if pre.pool == "mean" else "ReduceMax"
        if opset >= 18:  # from there on the axes are an input
            where = onnx.numpy_helper.from_array(np.array(axes, np.int64), "pixels-once-places")
            graph.initializer.append(where)
            inputs, more = [cast.output[0], where.name], {}
        else:
            inputs, more = [cast.output[0]], {"axes": list(axes)}
        last = make(operator, inputs, [_LEAVES], keepdims=0, **more)
    return [cast, last]


def _refused(file: Path, error: BaseException) -> ConfigError:
    return ConfigError(
        f"ONNX Runtime cannot run {str(file)!r} ({first_line(error, most=200).rstrip('.')}): export the "
        "model with another opset, or use --engine openvino"
    )
