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
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.openvino_runtime import read_rt_info, write_rt_info
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


def read_metadata(path: Path) -> dict[str, Any]:
    """The description in an ONNX file or an OpenVINO model; raises `ConfigError` if there is none."""
    if path.suffix == ".xml":
        texts = read_rt_info(path, SECTION)
    else:
        onnx = importlib.import_module("onnx")
        props = onnx.load(str(path), load_external_data=False).metadata_props
        prefix = f"{SECTION}."
        ours = [prop for prop in props if prop.key.startswith(prefix)]
        texts = {prop.key.removeprefix(prefix): prop.value for prop in ours}
    if not texts:
        raise ConfigError(f"{path} has no metadata of pixels-once: export it again")
    return {name: json.loads(text) for name, text in texts.items()}
