"""Each key of a model is read, said or assumed; one that nobody knows is asked for by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.features.backbones.model_config import ModelConfig
from pipeline.features.backbones.model_facts import ModelFacts, Tensor
from pipeline.features.backbones.model_settling import Settled, settle
from pipeline.spec import Preprocessing, Spec


def settled(
    shape: Any, *outputs: Any, dtype: str = "float32", inputs: int = 1, **said: Any
) -> Settled:
    facts = ModelFacts(
        inputs=tuple(Tensor(name=f"x{i}", shape=shape, dtype=dtype) for i in range(inputs)),
        outputs=tuple(
            Tensor(name=f"y{i}", shape=out) for i, out in enumerate(outputs or ((None, 8),))
        ),
    )
    return settle("onnx", "'m.onnx'", facts, ModelConfig(source="m.toml", **said))


def refusal(*args: Any, **said: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        settled(*args, **said)
    message = str(caught.value)
    assert "\n" not in message
    assert "'m.onnx'" in message or "m.toml" in message
    return message


def test_what_the_model_tells_need_not_be_said() -> None:
    kind = settled((None, 3, 224, 224), scale=1 / 255).kind
    assert (kind.size, kind.window, kind.gap, kind.dtype, kind.fit) == (
        224,
        1,
        0,
        "float16",
        "crop",
    )
    assert kind.preprocessing == Preprocessing(layout="NCHW", scale=1 / 255)
    kind = settled((1, 16, 112, 112, 3), scale=1.0, gap=2).kind
    assert (kind.size, kind.window, kind.gap) == (112, 16, 2)
    assert kind.preprocessing is not None
    assert kind.preprocessing.layout == "NTHWC"
    assert settled((None, 96, 96, 3), dtype="uint8").kind.size == 96


def test_every_key_says_where_it_came_from() -> None:
    choices = {c.key: (c.value, c.source) for c in settled((1, 3, 64, 64), scale=2.0).choices}
    assert choices["size"] == (64, "read from the model")
    assert choices["scale"] == (2.0, "said")
    assert choices["color"] == ("RGB", "assumed")


@pytest.mark.parametrize(
    ("shape", "said", "key"),
    [
        ((None, 3, None, None), {"scale": 1.0}, "size = 224"),
        ((None, None, None, None), {"scale": 1.0, "size": 8}, 'layout = "NCHW"'),
        ((None, 3, 32, 32), {}, 'scale = "1/255"'),
        ((None, 3, None, 32, 32), {"scale": 1.0}, "window = 16"),
        ((None, 3, 3, 32, 32), {"scale": 1.0}, 'layout = "NCHW"'),
    ],
)
def test_a_missing_key_is_named_with_an_example_and_what_the_model_told(
    shape: Any, said: Any, key: str
) -> None:
    message = refusal(shape, **said)
    assert f"e.g. {key}" in message
    assert "input 'x0' (" in message
    assert "write " in message


def test_an_output_is_chosen_and_pooled() -> None:
    picture = (None, 3, 32, 32)
    assert 'output = "features"' in refusal(picture, (1, 4), (1, 5), scale=1.0)
    assert "its outputs are y0, y1" in refusal(picture, (1, 4), (1, 5), scale=1.0, output="y2")
    kind = settled(picture, (1, 4), (1, 5), scale=1.0, output="y1").kind
    assert kind.preprocessing is not None
    assert kind.preprocessing.output == "y1"
    assert 'pool = "mean"' in refusal(picture, (None, 50, 768), scale=1.0)
    assert 'pool = "mean"' in refusal(picture, (None, 8, 4, 4), scale=1.0)
    for pool in ("mean", "max", "first", "none"):
        assert settled(picture, (None, 50, 768), scale=1.0, pool=pool).kind
    assert "takes the first of several tokens" in refusal(
        picture, (None, 8), scale=1.0, pool="first"
    )


def test_an_output_of_rank_5_is_refused_unless_it_is_pooled() -> None:
    clip = (None, 3, 8, 32, 32)
    assert "of rank 5" in refusal(clip, (None, 64, 2, 4, 4), scale=1.0)
    assert "of rank 5" in refusal(clip, (None, 64, 2, 4, 4), scale=1.0, pool="none")
    assert settled(clip, (None, 64, 2, 4, 4), scale=1.0, pool="mean").kind.window == 8
    assert "6 axes" in refusal(clip, (None, 64, 2, 4, 4, 1), scale=1.0, pool="mean")
    assert "1 axes" in refusal(clip, (None,), scale=1.0)


@pytest.mark.parametrize(
    ("shape", "said", "fact"),
    [
        ((None, 3, 32, 32), {"inputs": 3}, "it has 3 inputs"),
        ((None, 1, 32, 32), {"layout": "NCHW"}, "1 channels"),
        ((None, 3, 32, 48), {}, "48 × 32 pixels"),
        ((None, 10), {}, "its input is 'x0' (any, 10)"),
        ((None, 3, 32, 32), {"dtype": "int64"}, "int64"),
        ((None, 3, 32, 32), {"size": 48}, "size is 48 in 'm.toml' and the model has 32"),
        ((None, 3, 32, 32), {"window": 8}, "it reads one frame"),
        ((None, 3, 8, 32, 32), {"window": 16}, "window is 16 in 'm.toml' and the model has 8"),
        ((None, 3, 32, 32), {"layout": "NTHWC"}, "layout"),
    ],
)
def test_a_model_that_cannot_be_a_first_stage_is_refused(shape: Any, said: Any, fact: str) -> None:
    dtype = said.pop("dtype", "float32")
    assert fact in refusal(shape, dtype=dtype, scale=1.0, **said)


def read(tmp_path: Path, text: str) -> ModelConfig:
    (tmp_path / "m.toml").write_text(text, encoding="utf-8")
    return ModelConfig.read(tmp_path / "m.toml")


def test_a_toml_file_is_read(tmp_path: Path) -> None:
    config = read(
        tmp_path, 'scale = "1/255"\nmean = [0.5, "1/4", 0]\nstd = 2\nwindow = 16\ngap = 2\n'
    )
    assert (config.scale, config.mean, config.std) == (1 / 255, (0.5, 0.25, 0.0), (2.0, 2.0, 2.0))
    assert ModelConfig.beside(tmp_path / "m.onnx") == config
    assert ModelConfig.beside(tmp_path / "other.onnx") == ModelConfig()
    assert ModelConfig.beside(tmp_path / "o.onnx", str(tmp_path / "m.toml")) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("interpolatoin = 'area'", "unknown key interpolatoin: did you mean interpolation?"),
        ("xyz = 1", "unknown key xyz: the keys are size, layout"),
        ("scale = ", "is not valid TOML"),
        ("scale = '1/0'", "give a number, or a fraction"),
        ("scale = true", "give a number, or a fraction"),
        ("size = 22.4", "give a whole number, 1 or more"),
        ("window = 0", "give a whole number, 1 or more"),
        ("mean = [1, 2]", "one for each of three channels"),
        ("pool = 'average'", "use one of none, mean, max, first"),
        ("fit = 'whole'", "use one of crop, squash, pad"),
        ("output = 3", "give the output's name"),
    ],
)
def test_a_toml_file_that_cannot_be_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=r"m\.toml") as caught:
        read(tmp_path, text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_spec_of_a_model_comes_back_and_those_of_before_say_nothing_of_it() -> None:
    assert not {"gap", "preprocessing"} & Spec().to_dict().keys()
    made = Preprocessing(layout="NCTHW", scale=1 / 255, mean=(0.1, 0.2, 0.3), pool="mean")
    spec = Spec(backbone="onnx", window=16, gap=2, preprocessing=made)
    assert Spec.from_dict(spec.to_dict()) == spec
    assert spec.differences(Spec(backbone="onnx")).keys() == {
        "window", "gap", *(f"preprocessing.{name}" for name in made.__slots__)
    }  # fmt: skip
    with pytest.raises(ConfigError, match="the preprocessing has gamma, which this version"):
        Spec.from_dict(spec.to_dict() | {"preprocessing": {"gamma": 1}})


def test_the_fingerprint_of_a_model_stays_what_it_is() -> None:
    """For ever: stores of this version must be resumed by later ones."""
    spec = Spec(
        backbone="onnx", weights=f"sha256:{'0' * 64}", window=16, gap=2, size=224, shape=(512,),
        preprocessing=Preprocessing(layout="NCTHW", scale=1 / 255, pool="mean"), aspect="display",
    )  # fmt: skip
    assert spec.fingerprint == "570145c4ddf992dec9b5f7e998cc27ba6b036eddda43fe8aabba01c53e06dd1a"
    everything_different = [
        Spec(**{**plain(spec), "preprocessing": Preprocessing(**{**PRE, name: value})}).fingerprint
        for name, value in (("layout", "NTHWC"), ("color", "BGR"), ("scale", 1.0), ("mean", (1, 1, 1)),
                            ("std", (2, 2, 2)), ("output", "y"), ("pool", "max"))
    ]  # fmt: skip
    assert len({spec.fingerprint, *everything_different}) == 8


PRE: dict[str, Any] = {"layout": "NCTHW", "scale": 1 / 255, "pool": "mean"}


def plain(spec: Spec) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in spec.__slots__}
