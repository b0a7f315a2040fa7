"""What is read from a model file, compared with what its own library reads; and files that are none."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from pipeline.errors import ConfigError, WeightsNotFound
from pipeline.features.backbones import resolve_weights
from pipeline.features.backbones.keras_file import keras_facts
from pipeline.features.backbones.model_family import facts_of_file
from pipeline.features.backbones.onnx_file import onnx_facts
from tests.features import own_models
from tests.features.own_models import MATRIX, node, save


def refused(path: Path) -> str:
    """The one sentence of what is wrong with a file."""
    with pytest.raises(ConfigError) as caught:
        facts_of_file(path)
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message
    return message


@pytest.mark.parametrize("external", [False, True])
def test_an_onnx_file_is_read_as_onnx_reads_it(tmp_path: Path, external: bool) -> None:
    path = own_models.colours(tmp_path / "m.onnx", external=external)
    facts = onnx_facts(path)
    theirs = onnx.load(str(path))
    assert [x.name for x in facts.inputs] == [x.name for x in theirs.graph.input]
    assert facts.inputs[0].shape == (None, 3, own_models.SIZE, own_models.SIZE)
    assert facts.inputs[0].dtype == "float32"
    assert [x.name for x in facts.outputs] == ["features"]
    assert facts.outputs[0].shape == (None, 4)
    assert facts.parameters == MATRIX.size
    assert facts.files == ((tmp_path / "m.onnx.data",) if external else ())


def test_weights_that_are_listed_as_inputs_are_none(tmp_path: Path) -> None:
    path = own_models.colours(tmp_path / "m.onnx", inputs={"matrix": [3, 4]})
    assert [x.name for x in onnx_facts(path).inputs] == ["image"]


def test_the_hash_of_a_model_is_that_of_all_its_files(tmp_path: Path) -> None:
    path = own_models.colours(tmp_path / "m.onnx", external=True)
    before = resolve_weights(str(path), "onnx")
    assert before.path == path
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for file in list(tmp_path.glob("m.onnx*")):
        file.rename(moved / file.name)
    assert resolve_weights(str(moved / "m.onnx"), "onnx").hash == before.hash
    data = moved / "m.onnx.data"
    data.write_bytes(bytes([data.read_bytes()[0] ^ 1]) + data.read_bytes()[1:])
    assert resolve_weights(str(moved / "m.onnx"), "onnx").hash != before.hash
    data.unlink()
    assert "which is not beside it" in refused(moved / "m.onnx")


def test_what_is_no_onnx_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    whole = own_models.colours(tmp_path / "whole.onnx").read_bytes()
    texts = (
        b"",
        b"hello\n",
        b"import torch\n" * 40,
        b"\x00" * 64,
        whole[: len(whole) // 2],
        b"\xff" * 99,
    )
    for text in texts:
        path.write_bytes(text)
        assert "is no ONNX model" in refused(path)
    path.unlink()
    with pytest.raises(WeightsNotFound, match=r"no model file .*model\.onnx"):
        facts_of_file(path)
    path.mkdir()
    assert "is a folder" in refused(path)


def test_operators_that_onnx_does_not_define_are_named(tmp_path: Path) -> None:
    inner = helper.make_graph(
        [node("Deep", "image", "features", domain="com.example")],
        "branch",
        [],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, None)],
    )
    fancy = [node("Fancy", "image", "x", domain="com.example"), node("Identity", "x", "features")]
    branch = [helper.make_node("If", ["flag"], ["features"], then_branch=inner, else_branch=inner)]
    for name, nodes in (("Fancy", fancy), ("Deep", branch)):
        path = save(
            tmp_path / f"{name}.onnx", nodes, [1, 3, 8, 8], constants={"flag": np.array(True)}
        )
        assert f"com.example::{name}, which ONNX does not define" in refused(path)


def keras_file(path: Path, config: Any) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", json.dumps(config))
    return path


def layer(
    kind: str, name: str, module: str | None = "keras.layers", **config: Any
) -> dict[str, Any]:
    return {"class_name": kind, "module": module, "registered_name": None,
            "config": {"name": name, **config}}  # fmt: skip


IMAGE = layer("InputLayer", "image", batch_shape=[None, 8, 8, 3], dtype="float32")


def functional(*layers: dict[str, Any]) -> dict[str, Any]:
    names = [each["config"]["name"] for each in layers]
    config = {"layers": list(layers), "input_layers": [[names[0], 0, 0]],
              "output_layers": [names[-1], 0, 0]}  # fmt: skip
    return {"class_name": "Functional", "module": "keras.src.models.functional", "config": config}


def test_a_keras_file_is_read_without_keras(tmp_path: Path) -> None:
    dense = layer("Dense", "dense", units=4)
    facts = keras_facts(keras_file(tmp_path / "m.keras", functional(IMAGE, dense)))
    assert [(x.name, x.shape, x.dtype) for x in facts.inputs] == [
        ("image", (None, 8, 8, 3), "float32")
    ]
    assert [x.name for x in facts.outputs] == ["dense"]


def test_layers_that_run_their_authors_code_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    code = layer(
        "Lambda", "twice", function={"class_name": "__lambda__", "config": {"code": "4wEA"}}
    )
    assert "Lambda layer (twice)" in refused(keras_file(path, functional(IMAGE, code)))
    nested = functional(IMAGE, functional(IMAGE, code) | {"config": functional(IMAGE, code)["config"]
                                                          | {"name": "inner"}})  # fmt: skip
    message = refused(keras_file(path, nested))
    assert "Lambda layer (twice)" in message
    assert "package.module:function" in message
    theirs = layer("Mine", "own", module="my.layers")
    assert "my.layers.Mine (own)" in refused(keras_file(path, functional(IMAGE, theirs)))
    registered = layer("Mine", "own", module=None) | {"registered_name": "pkg>Mine"}
    assert "pkg>Mine (own)" in refused(keras_file(path, functional(IMAGE, registered)))


def test_what_is_no_keras_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    for data in (b"", b"hello", b"PK\x03\x04 cut"):
        path.write_bytes(data)
        assert "is no Keras model" in refused(path)
    assert "is no Keras model" in refused(keras_file(path, ["a", "list"]))
    assert "does not say what its model reads" in refused(
        keras_file(path, functional(layer("Dense", "dense")))
    )
