"""The metadata inside an exported file: labels, spec and preprocessing, as in the JSON file beside it.

Every value is JSON text. ONNX holds them in `metadata_props` as `pixels_once.NAME`, OpenVINO in
`rt_info` under `pixels_once`. A SavedModel is a folder, in which the JSON file lies.

OpenVINO has no option in a model's file that makes its CPU plugin compute in float32: neither
`runtime_options` nor marks on the operations change its choice of bfloat16 (2026.4 on a processor
with AMX). The option is written to `runtime_options` all the same, for programs that read it there,
and to `pixels_once` as what must be passed to `compile_model`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.openvino_runtime import write_rt_info
from pipeline.plain import json_text

SECTION = "pixels_once"


def write_metadata(path: Path, format: str, description: Mapping[str, Any]) -> None:
    """Write a description into an export; its `runtime_options` are the runtime's own, as texts."""
    texts = {name: json_text(value) for name, value in description.items()}
    if format == "openvino":
        options = description.get("runtime_options", {})
        values: dict[tuple[str, ...], str] = {(SECTION, name): text for name, text in texts.items()}
        values |= {("runtime_options", str(name)): str(value) for name, value in options.items()}
        write_rt_info(path, values)
    elif format == "onnx":
        onnx = importlib.import_module("onnx")
        model = onnx.load(str(path))
        onnx.helper.set_model_props(model, {f"{SECTION}.{k}": text for k, text in texts.items()})
        onnx.save(model, str(path))
