"""Keras' LSTM and GRU with the input of all steps projected in one matrix product.

Keras' own layers multiply every step's input apart, and their gradient adds up forty weight-sized
matrices. These compute the same (equal weights, outputs and gradients within rounding; a `.keras`
of one loads as the other): one product for all inputs, a scan over the steps, and a gradient that
gathers all steps into one product for the recurrent weights. On a GPU, TensorFlow's and torch's
cuDNN kernels are better still, and Keras' own code is used.
"""

from __future__ import annotations

from typing import Any

from pipeline import engine
from pipeline.heads.layers import PACKAGE, FastOrthogonal
from pipeline.heads.lean import keras
from pipeline.heads.recurrence import gru_states, lstm_states

ops = keras.ops

WIDE = 1024
"""From this width on the recurrent weights start from `FastOrthogonal`: QR takes a minute."""


class _Projected:
    """What both layers share: when to replace Keras' code, and how inputs and masks are laid out."""

    @staticmethod
    def start_weights(units: int) -> dict[str, Any]:
        """The initialisers that differ from Keras' own, for a layer of this width."""
        return {"recurrent_initializer": FastOrthogonal()} if units >= WIDE else {}

    def __init__(self, units: int, **options: Any) -> None:
        keras_layer: Any = super()
        keras_layer.__init__(units, **(self.start_weights(units) | options))

    def call(
        self, sequences: Any, initial_state: Any = None, mask: Any = None, training: Any = False
    ) -> Any:
        """`sequences` (batch, steps, channels), `mask` (batch, steps) → (batch, [steps,] units)."""
        layer: Any = self
        if not self._takes_over(sequences, initial_state):
            keras_layer: Any = super()
            return keras_layer.call(
                sequences, initial_state=initial_state, mask=mask, training=training
            )
        states = ops.cast(
            layer._states(*self._laid_out(sequences, mask), training), layer.compute_dtype
        )
        return ops.transpose(states, (1, 0, 2)) if layer.return_sequences else states[-1]

    def _takes_over(self, sequences: Any, initial_state: Any) -> bool:
        layer: Any = self
        plain = (
            initial_state is None
            and (sequences.shape[1] is not None or engine.backend_name() == "tensorflow")
            # Not by their serialised names: Keras imports TensorFlow for those, on any backend.
            and layer.activation is keras.activations.tanh
            and layer.recurrent_activation is keras.activations.sigmoid
            and layer.use_bias
            and not (layer.dropout or layer.recurrent_dropout)
            and not (layer.stateful or layer.return_state or layer.zero_output_for_mask)
            and getattr(layer, "reset_after", True)
        )
        has_cudnn = engine.backend_name() != "jax" and engine.device() == "gpu"
        return bool(plain and not has_cudnn)

    def _laid_out(self, sequences: Any, mask: Any) -> tuple[Any, Any]:
        """Inputs (steps, batch, channels) · kernel + bias in compute dtype, mask (steps, batch, 1)."""
        layer: Any = self
        x = ops.cast(sequences, layer.compute_dtype)
        if mask is None:
            mask = ops.ones_like(sequences[:, :, 0], dtype="bool")
        real = ops.expand_dims(ops.transpose(ops.cast(mask, "float32"), (1, 0)), -1)
        # Of videos of any length TensorFlow knows the steps only when it runs.
        steps = ops.shape(x)[1] if x.shape[1] is None else int(x.shape[1])
        channels = int(x.shape[2])
        units = int(layer.cell.kernel.shape[1])
        # The narrower side is transposed to steps first: it is a copy, and 2048 channels are many.
        if channels < units:
            x = ops.transpose(x, (1, 0, 2))
        flat = ops.matmul(ops.reshape(x, (-1, channels)), self._as(layer.cell.kernel))
        bias = self._as(layer.cell.bias)
        flat = flat + (bias if len(bias.shape) == 1 else bias[0])
        if channels < units:
            projected = ops.reshape(flat, (steps, -1, units))
        else:
            projected = ops.transpose(ops.reshape(flat, (-1, steps, units)), (1, 0, 2))
        if layer.go_backwards:
            projected, real = ops.flip(projected, axis=0), ops.flip(real, axis=0)
        return projected, real

    def _as(self, variable: Any) -> Any:
        """The variable as a tensor in compute dtype."""
        layer: Any = self
        return ops.cast(ops.convert_to_tensor(variable), layer.compute_dtype)


@keras.saving.register_keras_serializable(PACKAGE)
class LSTM(_Projected, keras.layers.LSTM):  # type: ignore[misc]
    """`keras.layers.LSTM`, faster on a CPU and under JAX; see the module."""

    def _states(self, projected: Any, real: Any, training: Any) -> Any:
        recurrent = self._as(self.cell.recurrent_kernel)
        return lstm_states(projected, recurrent, real, training=training)


@keras.saving.register_keras_serializable(PACKAGE)
class GRU(_Projected, keras.layers.GRU):  # type: ignore[misc]
    """`keras.layers.GRU`, faster on a CPU and under JAX; see the module."""

    def _states(self, projected: Any, real: Any, training: Any) -> Any:
        recurrent, bias = self._as(self.cell.recurrent_kernel), self._as(self.cell.bias)[1]
        return gru_states(projected, recurrent, bias, real, training=training)
