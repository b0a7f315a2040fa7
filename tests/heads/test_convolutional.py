"""The convolutions over all frames at once are Keras' own in everything but time."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline import engine
from pipeline.heads import convlstm, convolutional
from pipeline.heads.batches import filled_up
from pipeline.heads.compiling import compile_head
from pipeline.heads.convolutional import Conv3D, ConvLSTM2D, MaxPooling3D
from pipeline.heads.lean import keras
from pipeline.heads.zoo import build_head
from tests.sharing import others_long

SHAPE = (9, 8, 7, 3)  # as many steps as no single turn of a loop has
LAYERS = [
    (Conv3D, keras.layers.Conv3D, {"kernel_size": 3, "padding": "same", "activation": "relu"}),
    (Conv3D, keras.layers.Conv3D, {"kernel_size": (2, 3, 3), "padding": "same"}),
    (Conv3D, keras.layers.Conv3D, {"kernel_size": (1, 3, 3), "strides": 2}),
    (ConvLSTM2D, keras.layers.ConvLSTM2D, {"kernel_size": 3, "return_sequences": True}),
    (ConvLSTM2D, keras.layers.ConvLSTM2D, {"kernel_size": 3, "padding": "same", "strides": 2}),
    (ConvLSTM2D, keras.layers.ConvLSTM2D, {"kernel_size": 3, "recurrent_dropout": 0.5, "seed": 1}),
    (ConvLSTM2D, keras.layers.ConvLSTM2D, {"kernel_size": (1, 2), "return_sequences": True}),
]
POOLS = [
    {"pool_size": (1, 2, 2), "padding": "same"},
    {"pool_size": (1, 4, 2)},
    {"pool_size": 2, "strides": 1},
]
POOLS_OF_STEPS = [{"pool_size": (2, 3, 2), "padding": "same"}, {"pool_size": (2, 1, 3)}]
"""Under JAX alone: TensorFlow does not compare arrays that are broadcast over three axes."""


@pytest.fixture(autouse=True)
def on_any_backend_as_under_jax_on_a_cpu(monkeypatch):
    monkeypatch.setattr(convolutional, "_is_xla_on_cpu", lambda: True)


def one_layer(kind, options, weights=None):
    inputs = keras.Input(SHAPE)
    model = keras.Model(inputs, kind(filters=4, name="convolution", **options)(inputs))
    if weights is not None:
        model.set_weights(weights)
    return model


def compiled(model):
    jit = "auto" if engine.backend_name() == "jax" else False
    model.compile(optimizer=keras.optimizers.SGD(1.0), loss="mse", jit_compile=jit)
    return model


@pytest.mark.parametrize(
    ("ours", "theirs", "options"), others_long(LAYERS, LAYERS[1], LAYERS[3]), ids=str
)
def test_outputs_and_gradients_equal_keras(ours, theirs, options):
    rng = np.random.default_rng(0)
    keras_own = one_layer(theirs, options)
    # Biases too: they start at 0, where a mistake in them would not show.
    weights = [rng.normal(0, 0.5, w.shape).astype(np.float32) for w in keras_own.get_weights()]
    models = [one_layer(ours, options, weights), one_layer(theirs, options, weights)]
    frames = rng.normal(size=(3, *SHAPE)).astype(np.float32)
    shape = (3, *keras_own.output_shape[1:])
    for model in models:
        compiled(model).train_on_batch(frames, np.zeros(shape, np.float32))
    trained = [model.get_weights() for model in models]
    for mine, wanted in zip(*trained, strict=True):
        np.testing.assert_allclose(mine, wanted, atol=2e-6)
    # Afterwards: Keras' layer draws a mask of its dropout at predictions, too.
    np.testing.assert_allclose(*(model.predict_on_batch(frames) for model in models), atol=5e-6)


@pytest.mark.long
def test_masks_of_many_filters_are_applied_a_gate_at_a_time(monkeypatch):
    monkeypatch.setattr(convlstm, "NARROW", 3)
    options = {"kernel_size": 3, "recurrent_dropout": 0.5, "seed": 1, "return_sequences": True}
    test_outputs_and_gradients_equal_keras(ConvLSTM2D, keras.layers.ConvLSTM2D, options)


@pytest.mark.parametrize("options", POOLS, ids=str)
def test_a_pooling_and_its_gradient_are_keras_own_among_equal_values(options):
    rng = np.random.default_rng(0)
    # What is pooled are a frame's first two channels, small whole numbers, so most windows have their
    # maximum twice; the gradient of the third row of weights says which of them was chosen.
    frames = rng.integers(0, 3, size=(3, *SHAPE)).astype(np.float32)
    frames[..., 2] = rng.normal(size=frames.shape[:-1])
    weights = [np.array([[1, 0], [0, 1], [0, 0]], np.float32)]
    outputs, trained = [], []
    for kind in (MaxPooling3D, keras.layers.MaxPooling3D):
        inputs = keras.Input(SHAPE)
        x = keras.layers.Dense(2, use_bias=False)(inputs)
        model = compiled(keras.Model(inputs, kind(**options)(x)))
        model.set_weights(weights)
        outputs.append(model.predict_on_batch(frames))
        wanted = np.arange(outputs[0].size, dtype=np.float32) % 7
        model.train_on_batch(frames, wanted.reshape(outputs[0].shape))
        trained.append(model.get_weights()[0])
    np.testing.assert_array_equal(*outputs)
    np.testing.assert_allclose(*trained, atol=2e-6)
    assert np.abs(trained[0][2]).min() > 1e-3


def test_a_batch_filled_up_with_copies_trains_as_the_clips_alone():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(5, 6, 8)).astype(np.float32)
    mask = np.arange(6)[None] < np.array([6, 4, 1, 6, 3])[:, None]
    labels = np.eye(3, dtype=np.float32)[[0, 1, 2, 2, 0]]
    rows, counts = filled_up(5, 8)
    trained, logs = [], []
    for at, weights in ((np.arange(5), None), (rows, counts)):
        model = build_head("mlp", 6, (8,), 3, {"units": 16, "dropout": 0.0}, seed=3)
        compile_head(model, 1e-2)
        inputs = {"features": features[at], "mask": mask[at]}
        for _ in range(3):
            logs.append(model.train_on_batch(inputs, labels[at], weights, return_dict=True))
        trained.append(model.get_weights())
    for mine, wanted in zip(*trained, strict=True):
        np.testing.assert_allclose(mine, wanted, atol=1e-5)
    for alone, filled in zip(logs[:3], logs[3:], strict=True):
        assert filled == pytest.approx(alone, abs=1e-5)
