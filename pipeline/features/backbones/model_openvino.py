"""A user's model on OpenVINO: frames in, pooled features out, all of it one graph."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import engine
from pipeline.errors import ConfigError, first_line
from pipeline.features.backbones.family import BackboneKind, LoadOptions
from pipeline.features.backbones.model_settling import pooled_axes
from pipeline.features.backbones.openvino_engine import (
    OpenVinoBackbone,
    compiled,
    openvino_software,
    warm,
)
from pipeline.openvino_runtime import openvino
from pipeline.spec import Preprocessing, Spec

_BATCH = 8
_LEAST_BATCH = 2
"""Of one, no step has neighbours to be compared with."""


def load_on_openvino(
    spec: Spec, file: Path, options: LoadOptions, *, software: Mapping[str, str]
) -> OpenVinoBackbone:
    """Compile a model file, `.onnx` or `.xml`, with the spec's preprocessing for this CPU.

    The batch is the one that the model is fixed to, else 8 frames or two windows, unless the options
    say otherwise. Raises `ConfigError` where OpenVINO cannot run it.
    """
    threads = options.threads or engine.cores()
    model, batch = _processed(file, BackboneKind.of(spec), options.batch)
    try:
        ready = compiled(model, spec.precision, threads)
    except RuntimeError as error:
        raise _refused(file, error) from None
    backbone = OpenVinoBackbone(
        spec, ready, batch=batch, threads=threads, software={**software, **openvino_software()}
    )
    try:
        warm(backbone)
    except RuntimeError as error:
        raise _refused(file, error) from None
    return backbone


def output_shapes(file: Path, kind: BackboneKind) -> dict[str, tuple[int | None, ...]]:
    """The shape of every output of a model for frames of this kind, in the model's order."""
    model = _fixed(_read(file), kind, 0, file)[0]
    return {
        name_of(output): tuple(
            None if axis.is_dynamic else axis.get_length() for axis in output.partial_shape
        )
        for output in model.outputs
        if output.partial_shape.rank.is_static
    }


def name_of(output: Any) -> str:
    """The name of a model's output; "" where it has none."""
    return str(min(output.get_names(), default=""))


def _read(file: Path) -> Any:
    try:
        return openvino().Core().read_model(str(file))
    except RuntimeError as error:
        raise _refused(file, error) from None


def _fixed(model: Any, kind: BackboneKind, batch: int, file: Path) -> tuple[Any, int]:
    """The model with every axis of its input fixed, and its batch."""
    assert kind.preprocessing is not None
    layout = kind.preprocessing.layout
    first = model.inputs[0].partial_shape[layout.index("N")]
    usual = max(_LEAST_BATCH, _BATCH // kind.window)
    batch = (batch or usual) if first.is_dynamic else first.get_length()
    axes = {"N": batch, "T": kind.window, "C": 3, "H": kind.size, "W": kind.size}
    try:
        model.reshape([axes[axis] for axis in layout])
    except RuntimeError as error:
        raise _refused(file, error) from None
    return model, batch


def _processed(file: Path, kind: BackboneKind, batch: int) -> tuple[Any, int]:
    """(uint8 frames → float32 features of a fixed batch, as a graph; the batch)."""
    model, batch = _fixed(_read(file), kind, batch, file)
    preprocessing = kind.preprocessing
    assert preprocessing is not None
    window = (kind.window,) if kind.window > 1 else ()
    runtime = openvino()
    frames = runtime.opset13.parameter(
        [batch, *window, kind.size, kind.size, 3], np.uint8, name="frames"
    )
    frames.output(0).get_tensor().set_names({"frames"})
    parameter = model.get_parameters()[0]
    entering = _entering(frames, preprocessing, window=bool(window), dtype=parameter.element_type)
    chosen = _chosen(model, preprocessing.output)
    parameter.output(0).replace(entering.output(0))
    source = chosen.get_node().input_value(0)
    shape = source.get_partial_shape()
    if not shape.is_static or len(shape) < 2 or shape[0].get_length() != batch:
        raise ConfigError(
            f"the model {str(file)!r} gives {shape} for a batch of {batch} steps, so the shape of its "
            "output depends on what it sees: export one that gives as many vectors as it reads steps"
        )
    leaving = _leaving(source, [axis.get_length() for axis in shape], preprocessing)
    features = runtime.opset13.result(leaving)
    return runtime.Model([features], [frames], "pixels-once"), batch


def _entering(frames: Any, pre: Preprocessing, *, window: bool, dtype: Any) -> Any:
    ops = openvino().opset13
    scale, offset = linear(pre)
    node = frames
    if pre.color == "BGR":
        node = ops.gather(node, np.array([2, 1, 0], np.int64), np.int64(-1))
    if (scale != 1).any() or (offset != 0).any():
        node = ops.add(ops.multiply(ops.convert(node, "f32"), scale), offset)
    if node.get_element_type() != dtype:
        node = ops.convert(node, dtype.get_type_name())
    axes = "NTHWC" if "T" in pre.layout else "NHWC"
    if "T" in axes and not window:
        node = ops.unsqueeze(node, np.int64(1))
    if axes != pre.layout:
        order = np.array([axes.index(axis) for axis in pre.layout], np.int64)
        node = ops.transpose(node, order)
    return node


def linear(pre: Preprocessing) -> tuple[np.ndarray, np.ndarray]:
    """(3,) float32 each: what the model's channels are multiplied by, and what is added then."""
    scale, mean, std = (np.asarray(v, np.float64) for v in (pre.scale, pre.mean, pre.std))
    return (
        np.broadcast_to(scale / std, 3).astype(np.float32),
        np.broadcast_to(-mean / std, 3).astype(np.float32),
    )


def _chosen(model: Any, name: str) -> Any:
    return next((out for out in model.outputs if name in out.get_names()), model.outputs[0])


def _leaving(source: Any, shape: list[int], pre: Preprocessing) -> Any:
    ops = openvino().opset13
    axes = np.array(pooled_axes(tuple(shape), pre.layout), np.int64)
    node = source.get_node() if source.get_node().get_output_size() == 1 else source
    if pre.pool == "mean" and len(axes):
        node = ops.reduce_mean(node, axes)
    elif pre.pool == "max" and len(axes):
        node = ops.reduce_max(node, axes)
    elif pre.pool == "first":
        node = ops.gather(node, np.int64(0), np.int64(1))
    return ops.convert(node, "f32")


_WHERE = ("Exception from", "Check '", "at ", "While validating", "FrontEnd API failed", "Model wasn't",
          "Summary:")  # fmt: skip


def _refused(file: Path, error: BaseException) -> ConfigError:
    """OpenVINO's own reason, without the lines that say where in its source it was found."""
    lines = [line.strip(" -") for line in str(error).splitlines()]
    telling = [line for line in lines if line and not line.startswith(_WHERE)]
    why = telling[0] if telling else first_line(error)
    if why.endswith(":") and len(telling) > 1:  # the operator; what is wrong with it comes next
        why = f"{why} {telling[1]}"
    return ConfigError(
        f"OpenVINO cannot run {str(file)!r} ({why[:200].rstrip('.:')}): export the model with another "
        "opset, or use --engine onnxruntime"
    )
