"""Keras' 3D convolution and ConvLSTM as 2D convolutions over the frames of all steps at once.

Keras' ConvLSTM convolves every step's input apart, a gate at a time: eight small convolutions a step,
all of which are traced and compiled. XLA has no fast 3D convolution for CPUs. These layers compute the
same (equal weights, outputs and gradients within rounding; a `.keras` of one loads as the other).
"""

from __future__ import annotations

from typing import Any

from pipeline import engine
from pipeline.heads.layers import PACKAGE
from pipeline.heads.lean import keras

ops = keras.ops


@keras.saving.register_keras_serializable(PACKAGE)
class Conv3D(keras.layers.Conv3D):  # type: ignore[misc]
    """`keras.layers.Conv3D`; under JAX on a CPU a 2D convolution for each step of its kernel."""

    def call(self, inputs: Any) -> Any:
        """`inputs` (batch, steps, height, width, channels) → the same with `filters` channels."""
        if not self._takes_over():
            return super().call(inputs)
        x = ops.cast(inputs, self.compute_dtype)
        kernel = ops.cast(ops.convert_to_tensor(self.kernel), self.compute_dtype)
        steps, reach = int(x.shape[1]), int(kernel.shape[0])
        padded = ops.pad(x, [[0, 0], [(reach - 1) // 2, reach // 2], [0, 0], [0, 0], [0, 0]])
        y = sum(convolved(padded[:, k : k + steps], kernel[k], "same") for k in range(reach))
        if self.use_bias:
            y = y + ops.cast(ops.convert_to_tensor(self.bias), self.compute_dtype)
        return self.activation(y)

    def _takes_over(self) -> bool:
        return bool(
            engine.backend_name() == "jax"
            and engine.device() == "cpu"
            and self.padding == "same"
            and self.data_format == "channels_last"
            and set(self.strides) == set(self.dilation_rate) == {1}
            and self.groups == 1
        )


@keras.saving.register_keras_serializable(PACKAGE)
class ConvLSTM2D(keras.layers.ConvLSTM2D):  # type: ignore[misc]
    """`keras.layers.ConvLSTM2D`, the inputs of all steps convolved at once; see the module."""

    def call(
        self, sequences: Any, initial_state: Any = None, mask: Any = None, training: Any = False
    ) -> Any:
        """`sequences` (batch, steps, height, width, channels) → states (batch, [steps,] …)."""
        if not self._takes_over(sequences, initial_state, mask):
            return super().call(
                sequences, initial_state=initial_state, mask=mask, training=training
            )
        x = ops.cast(sequences, self.compute_dtype)
        bias = self._as(self.cell.bias)
        inputs = convolved(x, self._as(self.cell.kernel), self.padding, self.strides) + bias
        recurrent = self._as(self.cell.recurrent_kernel)
        none = ops.zeros_like(inputs[:, 0, ..., : self.filters])
        drops = self._recurrent_dropout(none) if training else ()
        gates = ops.split(recurrent, 4, axis=-1) if drops else ()

        def step(state: Any, given: Any) -> tuple[Any, Any]:
            h, c = state
            if drops:
                parts = [convolved_once(h * d, w) for d, w in zip(drops, gates, strict=True)]
                inner = ops.concatenate(parts, axis=-1)
            else:
                inner = convolved_once(h, recurrent)
            zi, zf, zg, zo = ops.split(given + inner, 4, axis=-1)
            c = ops.sigmoid(zf) * c + ops.sigmoid(zi) * ops.tanh(zg)
            h = ops.sigmoid(zo) * ops.tanh(c)
            return (h, c), (h,)

        over_time = ops.transpose(inputs, (1, 0, 2, 3, 4))
        (states,), _ = engine.scan(
            step, (none, none), (over_time,), outputs=[(self.compute_dtype, none.shape[1:])]
        )
        return ops.transpose(states, (1, 0, 2, 3, 4)) if self.return_sequences else states[-1]

    def _takes_over(self, sequences: Any, initial_state: Any, mask: Any) -> bool:
        return bool(
            initial_state is None
            and mask is None
            and sequences.shape[1] is not None
            and engine.backend_name() in {"tensorflow", "jax"}
            and self.data_format == "channels_last"
            and set(self.dilation_rate) == {1}
            and self.activation is keras.activations.tanh
            and self.recurrent_activation is keras.activations.sigmoid
            and self.use_bias
            and not self.dropout
            and not (self.stateful or self.return_state or self.go_backwards)
        )

    def _recurrent_dropout(self, state: Any) -> tuple[Any, ...]:
        """A mask for every gate, the same at all steps; none without recurrent dropout."""
        if not self.recurrent_dropout:
            return ()
        masks = self.cell.get_recurrent_dropout_mask(state)
        self.cell.reset_recurrent_dropout_mask()
        return tuple(masks)

    def _as(self, variable: Any) -> Any:
        return ops.cast(ops.convert_to_tensor(variable), self.compute_dtype)


def convolved(x: Any, kernel: Any, padding: str, strides: Any = 1) -> Any:
    """`x` (batch, steps, height, width, channels), each frame convolved with `kernel` (h, w, in, out)."""
    flat = ops.reshape(x, (-1, *x.shape[2:]))
    flat = ops.conv(flat, kernel, strides=strides, padding=padding, data_format="channels_last")
    return ops.reshape(flat, (-1, x.shape[1], *flat.shape[1:]))


def convolved_once(x: Any, kernel: Any) -> Any:
    """`x` (batch, height, width, channels), as large as before."""
    return ops.conv(x, kernel, strides=1, padding="same", data_format="channels_last")
