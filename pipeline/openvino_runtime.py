"""OpenVINO without its telemetry, and a Keras model written in its format.

The only file that imports OpenVINO: imported anywhere else, its converter would report to Google
Analytics and write a client id into the home folder.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline import engine


def openvino() -> Any:
    """The module `openvino`, imported so that it never reports its use.

    OpenVINO's converter, which its import brings along, falls back to an empty stand-in where the
    package `openvino_telemetry` cannot be imported; a None in `sys.modules` makes it so in this
    process whatever is installed, in the environment, or in the home folder.
    """
    if "openvino" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import openvino

    return openvino


def write_rt_info(xml: Path, values: Mapping[tuple[str, ...], str]) -> None:
    """Write texts into a model's `rt_info`, which its XML carries: path in it → text."""
    model = openvino().Core().read_model(str(xml))
    for where, text in values.items():
        model.set_rt_info(text, list(where))
    # Under another name: the weights of a model that was read stay mapped from its file.
    making = xml.with_name(f"described-{xml.name}")
    openvino().serialize(model, str(making))
    del model
    for suffix in (".bin", ".xml"):
        making.with_suffix(suffix).replace(xml.with_suffix(suffix))


def write_openvino(model: Any, xml: Path) -> None:
    """Write a Keras model to `xml` and the `.bin` beside it, weights in float32.

    Inputs keep the names that they have in the model.

    The model goes through a SavedModel on disk. Keras' own `export(format="openvino")` hands the
    converter a traced function instead, and there OpenVINO 2026.4 deletes a name inside `exec`,
    which Python 3.13 no longer allows (`NameError: name 'tensorflow' is not defined`). On torch,
    where Keras writes no SavedModel without TensorFlow, its own export is used: that path is whole.
    """
    runtime = openvino()
    if engine.backend_name() == "torch":
        model.export(str(xml), format="openvino", verbose=False)
        return
    with tempfile.TemporaryDirectory(prefix="pixels-once-") as folder:
        model.export(folder, format="tf_saved_model", verbose=False)
        converted = runtime.convert_model(folder)
    runtime.serialize(converted, str(xml))
