"""Dropout that XLA compiles quickly."""

from __future__ import annotations

from typing import Any

from pipeline import engine
from pipeline.heads.lean import keras

ops = keras.ops


@keras.saving.register_keras_serializable("pixels_once")
class Dropout(keras.layers.Dropout):  # type: ignore[misc]
    """`keras.layers.Dropout` whose mask is drawn along one axis under JAX; it is the same mask.

    On a CPU, XLA unrolls the short inner axes of what is drawn, forty operations a number: three
    masks over pixels and filters took 7 of 10 seconds of compiling.
    """

    def call(self, inputs: Any, training: Any = False) -> Any:
        """`inputs` of any shape → the same shape."""
        if engine.backend_name() != "jax" or len(inputs.shape) < 3 or self.noise_shape is not None:
            return super().call(inputs, training=training)
        flat = super().call(ops.reshape(inputs, (-1,)), training=training)
        return ops.reshape(flat, (-1, *inputs.shape[1:]))
