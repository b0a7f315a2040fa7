"""Small ONNX models made for tests, whose features can be computed in three lines of NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.features.clips import BITS, CELL

SIZE = 32
MATRIX = np.array(
    [[1.0, -0.5, 0.25, 2.0], [0.5, 1.5, -1.0, 0.1], [-0.3, 0.7, 2.0, 1.0]], np.float32
)
"""Of RGB means to four features."""

Axis = int | str


def save(
    path: Path,
    nodes: list[Any],
    shape: list[Axis],
    *,
    outputs: dict[str, list[Axis] | None] | None = None,
    constants: dict[str, np.ndarray] | None = None,
    inputs: dict[str, list[Axis]] | None = None,
    dtype: int = TensorProto.FLOAT,
    opset: int = 17,
    external: bool = False,
) -> Path:
    """Write a model of `nodes` from `image` to its outputs (`features`, of two axes, if not given)."""
    outputs = outputs or {"features": ["batch", 4]}
    graph = helper.make_graph(
        nodes,
        "test",
        [
            helper.make_tensor_value_info("image", dtype, shape),
            *(
                helper.make_tensor_value_info(n, TensorProto.FLOAT, s)
                for n, s in (inputs or {}).items()
            ),
        ],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.example", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    if external:
        onnx.save(
            model, str(path), save_as_external_data=True, location=f"{path.name}.data",
            size_threshold=0,
        )  # fmt: skip
    else:
        onnx.save(model, str(path))
    return path


def node(operator: str, inputs: str, output: str, **attributes: Any) -> Any:
    return helper.make_node(operator, inputs.split(), [output], **attributes)


def shape_of(
    layout: str, *, batch: Axis = "batch", size: Axis = SIZE, time: Axis = 4
) -> list[Axis]:
    lengths: dict[str, Axis] = {"N": batch, "T": time, "C": 3, "H": size, "W": size}
    return [lengths[axis] for axis in layout]


def colours(path: Path, layout: str = "NCHW", **options: Any) -> Path:
    """(n, 4): the mean of each channel over all places (and times), times `MATRIX`."""
    places = [axis for axis, name in enumerate(layout) if name not in "NC"]
    matrix = options.pop("matrix", MATRIX)
    shape = options.pop("shape", shape_of(layout))
    nodes = [
        node("ReduceMean", "image", "means", axes=places, keepdims=0),
        node("MatMul", "means matrix", "features"),
    ]
    return save(path, nodes, shape, constants={"matrix": matrix}, **options)


def copied(path: Path, layout: str = "NCHW", **options: Any) -> Path:
    """The picture itself, less its mean over places: (n, 3, size, size) or in its own layout."""
    places = [axis for axis, name in enumerate(layout) if name not in "NC"]
    nodes = [
        node("ReduceMean", "image", "means", axes=places, keepdims=1),
        node("Add", "image means", "features"),
    ]
    shape = shape_of(layout)
    return save(path, nodes, shape, outputs={"features": shape}, **options)


def numbers(path: Path, *, window: int, size: int = 96, layout: str = "NCTHW") -> Path:
    """(n, window): the number that is painted on each frame of a window of `clips.write_numbered_clip`.

    The frame is the middle square of 96 × 96 pixels, in which the cells are where they were.
    """
    width, height = BITS // 2 * CELL, 2 * CELL
    top, left = (size - height) // 2, (size - width) // 2
    channel = layout.index("C")
    down, across = (axis - (axis > channel) for axis in (layout.index("H"), layout.index("W")))
    nodes = [
        node("ReduceMean", "image", "grey", axes=[channel], keepdims=0),
        node("Slice", "grey starts ends axes", "cells"),
        node("Reshape", "cells blocks", "parts"),
        node("ReduceMean", "parts", "bright", axes=[3, 5], keepdims=0),
        node("Reshape", "bright flat", "bits"),
        node("Greater", "bits half", "ones"),
        node("Cast", "ones", "values", to=TensorProto.FLOAT),
        node("MatMul", "values powers", "features"),
    ]
    constants = {
        "starts": np.array([top, left], np.int64),
        "ends": np.array([top + height, left + width], np.int64),
        "axes": np.array([down, across], np.int64),
        "blocks": np.array([-1, window, 2, CELL, BITS // 2, CELL], np.int64),
        "flat": np.array([-1, window, BITS], np.int64),
        "half": np.array(0.5, np.float32),
        "powers": (2.0 ** np.arange(BITS)).astype(np.float32),
    }
    shape = shape_of(layout, size=size, time=window)
    return save(path, nodes, shape, outputs={"features": ["batch", window]}, constants=constants)


def toml(path: Path, text: str) -> Path:
    """Write what is said of a model beside it."""
    path.with_suffix(".toml").write_text(text, encoding="utf-8")
    return path
