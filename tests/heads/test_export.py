"""An export is the head, says what it was compared with, and leaves nothing where it cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.heads import export
from pipeline.heads.export import export_run, for_inference
from pipeline.heads.lean import keras
from pipeline.heads.saved import Run
from pipeline.heads.zoo import build_head
from tests.heads.test_zoo import CASES, SHAPES, SMALL, clips


def run_of(head: str, reads: str = "features", precision: str = "float32") -> Run:
    """A head that was never trained, as a finished run would hold it."""
    model = build_head(head, 5, SHAPES[reads], 4, SMALL.get(head, {}), seed=1, precision=precision)
    # Start weights are small: larger ones make probabilities that tell classes apart.
    model.set_weights([w * 3 if w.ndim > 1 else w for w in model.get_weights()])
    return Run(
        folder=Path("runs/one"), model=model, config={"head": {"name": head}},
        metrics={"digest": "d" * 64}, classes=["a", "b", "=c", "d\r"],
        spec={"backbone": "inception_v3"}, fingerprint="f" * 64,
        first_stage={"weights": "imagenet"}, steps=5, shape=SHAPES[reads],
    )  # fmt: skip


@pytest.mark.parametrize(("head", "reads"), CASES)
def test_what_is_exported_is_the_head_without_anything_of_training(head, reads):
    run = run_of(head, reads)
    twin = for_inference(run.model)
    run.model.run_eagerly = twin.run_eagerly = True  # compiling both takes longer than all else
    rates = ("rate", "dropout", "recurrent_dropout")
    assert not [
        (layer.name, rate)
        for layer in twin._flatten_layers()
        for rate in rates
        if getattr(layer, rate, 0)
    ]
    features, mask = clips(reads, 5)
    inputs = {"features": features, "mask": mask}
    ours, theirs = run.model.predict_on_batch(inputs), twin.predict_on_batch(inputs)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert np.ptp(ours, axis=1).max() > 0.05


FORMATS = [("gru", "features", "saved_model")]
LONG = [
    ("convlstm", "frames", "openvino"),
    ("transformer", "features", "onnx"),
    ("transformer", "features", "openvino"),
    ("attention", "features", "onnx"),
    ("bilstm", "features", "openvino"),
    ("lrcn", "frames", "openvino"),
    ("pyramid", "features", "saved_model"),
    ("pyramid", "features", "onnx"),
    ("pyramid", "features", "openvino"),
]


@pytest.mark.parametrize(
    ("head", "reads", "format"),
    [*FORMATS, *(pytest.param(*case, marks=pytest.mark.long) for case in LONG)],
)
def test_an_export_carries_what_must_be_known_to_serve_it(head, reads, format, tmp_path):
    for package in export.NEEDS[format]:
        pytest.importorskip(package)
    run = run_of(head, reads, "mixed_bfloat16" if head == "gru" else "float32")
    path = tmp_path / {"saved_model": "head", "onnx": "h.onnx", "openvino": "h.xml"}[format]
    found = export_run(run, path, format=format)
    assert path.exists()
    told = json.loads(Path(found["beside"]).read_text(encoding="utf-8"))
    assert told["labels"] == run.classes
    assert told["spec"] == run.spec
    assert told["first_stage"] == run.first_stage
    assert told["digest"] == "d" * 64
    assert told["compared"]["largest_difference"] <= 1e-4
    assert told["compared"]["options"] == export.OPTIONS.get(format, {})
    if format != "saved_model":
        inside = as_its_own_runtime_reads_it(path, format)
        beside = {name: value for name, value in told.items() if name != "compared"}
        assert inside == beside | {"runtime_options": export.OPTIONS.get(format, {})}
        assert {"labels", "spec", "first_stage", "preprocessing", "digest"} <= set(inside)
    assert "in float32" in found["compared"]
    assert ("trained in mixed_bfloat16" in found["compared"]) == (head == "gru")
    assert not [entry for entry in tmp_path.iterdir() if entry.name.startswith(".")]
    with pytest.raises(ConfigError, match="exists: choose another path"):
        export_run(run, path, format=format)


def as_its_own_runtime_reads_it(path: Path, format: str) -> dict[str, Any]:
    """The metadata in a file, without a line of ours between."""
    if format == "onnx":
        import onnx

        props = onnx.load(str(path)).metadata_props
        return {prop.key.removeprefix("pixels_once."): json.loads(prop.value) for prop in props}
    root = ElementTree.parse(path).getroot().find("rt_info")
    assert root is not None
    option = root.find("runtime_options/INFERENCE_PRECISION_HINT")
    assert option is not None
    assert option.get("value") == "f32"
    return {
        entry.tag: json.loads(entry.attrib["value"]) for entry in root.iterfind("pixels_once/*")
    }


@pytest.mark.parametrize("fails", ["while it is written", "when it is read", "by what it says"])
def test_an_export_that_fails_is_a_sentence_and_leaves_nothing(fails, tmp_path, monkeypatch):
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no rule for this operation\nand a page of more")

    run = run_of("mlp")
    if fails == "while it is written":
        monkeypatch.setattr(keras.Model, "export", broken)
    else:
        monkeypatch.setattr(keras.Model, "export", lambda self, path, **_: Path(path).mkdir())
        wrong = {"saved_model": lambda *_: np.ones((4, 4))}
        reader = wrong if fails == "by what it says" else {"saved_model": broken}
        monkeypatch.setattr(export, "_READERS", reader)
    with pytest.raises(ConfigError) as caught:
        export_run(run, tmp_path / "out" / "head")
    assert "\n" not in str(caught.value)
    assert "use another format" in str(caught.value)
    assert not any((tmp_path / "out").iterdir())
