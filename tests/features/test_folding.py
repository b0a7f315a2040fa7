"""Normalisation folded into convolutions gives the same values, and is left where it must be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.features.backbones.keras_model import folded
from pipeline.heads.lean import keras

layers = keras.layers


def conv_then_norm(kind: Any, **options: Any) -> Any:
    inputs = keras.Input((9, 9, 4))
    x = kind(kernel_size=3, padding="same", use_bias=False, **options)(inputs)
    x = layers.BatchNormalization(scale=False)(x)
    x = layers.Activation("relu")(x)
    shared = layers.Conv2D(5, 1)(x)
    x = layers.BatchNormalization()(shared)
    # Its output is used without the normalisation too.
    x = layers.Concatenate()([x, shared])
    # A normalisation that no convolution precedes.
    x = layers.BatchNormalization()(x)
    x = layers.Conv2D(3, 1, activation="relu")(x)
    outputs = layers.BatchNormalization()(x)
    return keras.Model(inputs, outputs)


def unsettled(model: Any) -> Any:
    """The model with values everywhere: fresh normalisations change next to nothing."""
    rng = np.random.default_rng(1)
    for layer in model.layers:
        for variable in layer.variables:
            positive = variable.name in ("gamma", "moving_variance")
            low, high = (0.5, 1.5) if positive else (-0.5, 0.5)
            variable.assign(rng.uniform(low, high, variable.shape).astype(np.float32))
    return model


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (layers.Conv2D, {"filters": 6}),
        (layers.Conv2D, {"filters": 6, "strides": 2}),
        (layers.DepthwiseConv2D, {"depth_multiplier": 2}),
        (layers.SeparableConv2D, {"filters": 6, "depth_multiplier": 2}),
    ],
    ids=("conv", "strided", "depthwise", "separable"),
)
def test_the_folded_model_gives_what_the_model_gives(kind: Any, options: dict[str, Any]) -> None:
    model = unsettled(conv_then_norm(kind, **options))
    frames = np.random.default_rng(2).normal(size=(3, 9, 9, 4)).astype(np.float32)
    before = model.predict_on_batch(frames)
    copy, count = folded(model)
    # Of four normalisations one follows a convolution alone that has no activation of its own.
    assert count == 1
    assert sum(isinstance(layer, layers.BatchNormalization) for layer in copy.layers) == 3
    np.testing.assert_allclose(copy.predict_on_batch(frames), before, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(model.predict_on_batch(frames), before)


def test_a_model_without_a_pair_is_left_as_it_is() -> None:
    inputs = keras.Input((4, 4, 3))
    model = keras.Model(inputs, layers.Conv2D(2, 1)(inputs))
    assert folded(model) == (model, 0)
