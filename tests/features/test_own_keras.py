"""Keras models of the user's, of a file and of code, on OpenVINO and on Keras itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.features.backbones import LoadOptions, load, resolve_weights
from pipeline.features.backbones.model_checks import pictures
from pipeline.features.backbones.model_config import ModelConfig
from pipeline.features.backbones.model_measuring import _run, spec_of

pytestmark = pytest.mark.slow

SIZE = 16
ME = "tests.features.test_own_keras"
SAID = ModelConfig(scale=1 / 255, mean=(0.5, 0.5, 0.5), color="BGR", output="pooled")


def two_outputs(seed: int = 1) -> Any:
    """A picture's convolution averaged (what is wanted), and its largest value."""
    import keras

    image = keras.Input((SIZE, SIZE, 3), name="image")
    kernel = keras.initializers.RandomNormal(seed=seed)
    x = keras.layers.Conv2D(5, 3, kernel_initializer=kernel)(image)
    largest = keras.layers.GlobalMaxPooling2D(name="largest")(x)
    return keras.Model(image, [largest, keras.layers.GlobalAveragePooling2D(name="pooled")(x)])


def restless() -> Any:
    """Other weights at every call."""
    return two_outputs(seed=int(np.random.default_rng().integers(1 << 30)))


def expected(frames: np.ndarray) -> np.ndarray:
    """What the pooled output is, by Keras alone."""
    from pipeline import engine

    engine.prepare()
    values = frames[..., ::-1].astype(np.float32) / 255 - 0.5
    return np.asarray(two_outputs()(values)[1])


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.mark.long
@pytest.mark.parametrize("source", ["file", "code"])
def test_a_keras_model_is_the_same_on_both_engines(
    source: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline import engine

    monkeypatch.setenv("PIXELS_ONCE_CACHE", str(cache))
    name = f"{ME}:two_outputs"
    if source == "file":
        engine.prepare()
        name = str(tmp_path / "model.keras")
        two_outputs().save(name)
    trial = _run(name, SAID, "auto", "")
    assert (trial.kind.shape, trial.kind.size, trial.parameters) == ((5,), SIZE, 140)
    spec = spec_of(trial.kind, trial.hash, "float32")
    weights = resolve_weights(name if source == "file" else trial.hash, spec.backbone)
    assert spec.backbone == ("keras" if source == "file" else name)
    for wanted in ("openvino", "keras"):
        backbone = load(spec, weights, LoadOptions(engine=wanted, cache=cache))
        frames = pictures(backbone.batch_shape, seed=4)
        np.testing.assert_allclose(backbone(frames), expected(frames), atol=1e-4)
    monkeypatch.setattr(engine, "precisions", lambda: ("bfloat16", "float32"))
    with pytest.raises(ConfigError, match="as it was saved, not in bfloat16"):
        load(replace(spec, precision="bfloat16"), weights, LoadOptions(engine="keras"))


def test_code_that_returns_other_weights_at_every_call_is_refused() -> None:
    name = f"{ME}:restless"
    with pytest.raises(ConfigError, match="give it the same weights at every call"):
        _run(name, SAID, "keras", "")
