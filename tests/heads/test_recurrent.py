"""The fast recurrent layers are Keras' own in everything but time."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline import engine
from pipeline.heads.layers import FastOrthogonal
from pipeline.heads.lean import keras
from pipeline.heads.recurrent import GRU, LSTM

PAIRS = [(LSTM, keras.layers.LSTM), (GRU, keras.layers.GRU)]
OPTIONS = [{}, {"return_sequences": True}, {"go_backwards": True, "return_sequences": True}]


def one_layer(kind, weights=None, dtype="float32", steps=7, **options):
    features = keras.Input((steps, 5))
    mask = keras.Input((steps,), dtype="bool")
    outputs = kind(11, dtype=dtype, name="recurrent", **options)(features, mask=mask)
    model = keras.Model([features, mask], outputs)
    model.run_eagerly = True  # compiling takes longer than all else; the zoo does
    if weights is not None:
        model.set_weights(weights)
    return model


def batch(seed=0, steps=7):
    rng = np.random.default_rng(seed)
    mask = np.arange(steps)[None] < np.array([steps, 4, 1, 6])[:, None]
    return rng.normal(size=(4, steps, 5)).astype(np.float32), mask


def some_weights(model, seed=1):
    # Biases too: they start at 0, where a mistake in them would not show.
    rng = np.random.default_rng(seed)
    return [rng.normal(0, 0.5, w.shape).astype(np.float32) for w in model.get_weights()]


def gradients(model, inputs, **options):
    """The weights' change under one plain gradient step: backend-neutral gradients."""
    before = [w.copy() for w in model.get_weights()]
    target = np.zeros(model.predict_on_batch(inputs).shape, np.float32)
    options = options or {"run_eagerly": True}
    model.compile(optimizer=keras.optimizers.SGD(1.0), loss="mse", **options)
    model.train_on_batch(inputs, target)
    return [a - b for a, b in zip(before, model.get_weights(), strict=True)]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_outputs_and_gradients_equal_keras(ours, theirs, options):
    weights = some_weights(one_layer(theirs, **options))
    ours_model = one_layer(ours, weights, **options)
    theirs_model = one_layer(theirs, weights, **options)
    inputs = list(batch())
    np.testing.assert_allclose(
        ours_model.predict_on_batch(inputs), theirs_model.predict_on_batch(inputs), atol=2e-6
    )
    for mine, keras_own in zip(
        gradients(ours_model, inputs), gradients(theirs_model, inputs), strict=True
    ):
        np.testing.assert_allclose(mine, keras_own, atol=2e-6)


@pytest.mark.parametrize(
    ("ours", "theirs"), [pytest.param(*PAIRS[0], marks=pytest.mark.long), PAIRS[1]]
)
def test_a_compiled_loop_over_steps_equals_keras_for_batches_of_any_size(ours, theirs):
    options = {"steps": 20, "return_sequences": True}  # as many as no single turn of a loop has
    weights = some_weights(one_layer(theirs, **options))
    features, mask = batch(steps=20)
    compiled = "auto" if engine.backend_name() == "jax" else False
    fast = one_layer(ours, weights, **options)
    fast.run_eagerly = False
    for clips in (4, 3, 2):  # from the third size on TensorFlow's graph has one of any
        inputs = [features[:clips], mask[:clips]]
        fast.set_weights(weights)
        mine = gradients(fast, inputs, jit_compile=compiled)
        slow = one_layer(theirs, weights, **options)
        for got, wanted in zip(mine, gradients(slow, inputs), strict=True):
            np.testing.assert_allclose(got, wanted, atol=2e-6)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_bfloat16_stays_near_float32(ours, theirs):
    weights = some_weights(one_layer(theirs))
    inputs = list(batch())
    exact = one_layer(theirs, weights).predict_on_batch(inputs)
    narrow = np.asarray(
        one_layer(ours, weights, dtype="mixed_bfloat16").predict_on_batch(inputs), np.float32
    )
    np.testing.assert_allclose(narrow, exact, atol=0.03)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_saved_weights_load_either_way(ours, theirs, tmp_path):
    inputs = list(batch())
    for writer, reader in ((ours, theirs), (theirs, ours)):
        written = one_layer(writer, some_weights(one_layer(writer)))
        written.save_weights(tmp_path / "head.weights.h5")
        read = one_layer(reader)
        read.load_weights(tmp_path / "head.weights.h5")
        np.testing.assert_allclose(
            written.predict_on_batch(inputs), read.predict_on_batch(inputs), atol=2e-6
        )


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_what_the_fast_path_does_not_know_goes_to_keras(ours, theirs):
    options = {"activation": "relu", "recurrent_activation": "hard_sigmoid"}
    weights = some_weights(one_layer(theirs, **options))
    inputs = list(batch())
    np.testing.assert_allclose(
        one_layer(ours, weights, **options).predict_on_batch(inputs),
        one_layer(theirs, weights, **options).predict_on_batch(inputs),
        rtol=1e-5,
    )


@pytest.mark.parametrize("shape", [(24, 96), (96, 24), (30, 30)])
def test_fast_orthogonal_is_orthogonal_and_seeded(shape):
    first = np.asarray(FastOrthogonal(seed=4)(shape))
    np.testing.assert_array_equal(first, np.asarray(FastOrthogonal(seed=4)(shape)))
    assert np.abs(first - np.asarray(FastOrthogonal(seed=5)(shape))).max() > 0.01
    small = first @ first.T if shape[0] <= shape[1] else first.T @ first
    np.testing.assert_allclose(small, np.eye(min(shape)), atol=1e-5)
    # Spread like a Gaussian's, not a few large entries.
    assert np.abs(first).max() * np.sqrt(max(shape)) < 6


@pytest.mark.parametrize(("kind", "masked"), [(LSTM, True), (GRU, True), (LSTM, False)])
def test_on_a_gpu_the_layer_takes_cudnn(kind, masked):
    if engine.backend_name() != "tensorflow" or engine.device() != "gpu":
        pytest.skip("no GPU that TensorFlow can use: cuDNN's kernels cannot be looked for")
    import tensorflow as tf

    features, mask = batch()
    layer = kind(16)
    right_padded = np.sort(mask, axis=1)[:, ::-1] if masked else None

    @tf.function(jit_compile=False)
    def call(values):
        return layer(values, mask=None if right_padded is None else tf.constant(right_padded))

    graph = call.get_concrete_function(tf.constant(features)).graph.as_graph_def()
    nodes = [*graph.node, *(node for one in graph.library.function for node in one.node_def)]
    assert any(node.op.startswith("CudnnRNN") for node in nodes)
