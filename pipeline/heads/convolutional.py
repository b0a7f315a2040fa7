"""Keras' 3D convolution, 3D pooling and ConvLSTM by operations that compile and run faster.

Keras' ConvLSTM convolves every step's input apart, a gate at a time: eight small convolutions a step,
all of which are traced and compiled, forwards and back. XLA has no fast 3D convolution for CPUs, and
of the gradient of a pooling it makes five arrays of indices, each as large as the input, and a scatter.
These layers compute the same (equal weights, outputs and gradients within rounding; a `.keras` of one
loads as the other).
"""

from __future__ import annotations

import functools
from typing import Any

from pipeline import engine
from pipeline.heads.convlstm import trained_states, untrained_states
from pipeline.heads.layers import PACKAGE
from pipeline.heads.lean import keras

ops = keras.ops


@keras.saving.register_keras_serializable(PACKAGE)
class Conv3D(keras.layers.Conv3D):  # type: ignore[misc]
    """`keras.layers.Conv3D`; under JAX on a CPU a 2D convolution with the kernel's steps as channels."""

    def call(self, inputs: Any) -> Any:
        """`inputs` (batch, steps, height, width, channels) → the same with `filters` channels."""
        if not self._takes_over():
            return super().call(inputs)
        x = ops.cast(inputs, self.compute_dtype)
        kernel = ops.cast(ops.convert_to_tensor(self.kernel), self.compute_dtype)
        steps, (reach, *size, channels, filters) = int(x.shape[1]), kernel.shape
        if reach > 1:
            padded = ops.pad(x, [[0, 0], [(reach - 1) // 2, reach // 2], [0, 0], [0, 0], [0, 0]])
            x = ops.concatenate([padded[:, k : k + steps] for k in range(reach)], axis=-1)
            kernel = ops.transpose(kernel, (1, 2, 0, 3, 4))
        y = convolved(x, ops.reshape(kernel, (*size, reach * channels, filters)), "same")
        if self.use_bias:
            y = y + ops.cast(ops.convert_to_tensor(self.bias), self.compute_dtype)
        return self.activation(y)

    def _takes_over(self) -> bool:
        return bool(
            _is_xla_on_cpu()
            and self.padding == "same"
            and self.data_format == "channels_last"
            and set(self.strides) == set(self.dilation_rate) == {1}
            and self.groups == 1
        )


@keras.saving.register_keras_serializable(PACKAGE)
class MaxPooling3D(keras.layers.MaxPooling3D):  # type: ignore[misc]
    """`keras.layers.MaxPooling3D`; under JAX on a CPU the maximum of every window as an axis."""

    def call(self, inputs: Any) -> Any:
        """`inputs` (batch, steps, height, width, channels) → the same with fewer of the three."""
        if not self._takes_over():
            return super().call(inputs)
        sizes = [int(n) for n in inputs.shape[1:4]]
        if self.padding == "same":
            short = [-n % size for n, size in zip(sizes, self.pool_size, strict=True)]
            if any(short):
                pads = [[0, 0], *([n // 2, n - n // 2] for n in short), [0, 0]]
                inputs = ops.pad(inputs, pads, constant_values=-float("inf"))
        else:
            t, h, w = (n // size * size for n, size in zip(sizes, self.pool_size, strict=True))
            inputs = inputs[:, :t, :h, :w]
        return windows_maximum(inputs, self.pool_size)

    def _takes_over(self) -> bool:
        whole = tuple(self.strides) == tuple(self.pool_size)
        return _is_xla_on_cpu() and whole and self.data_format == "channels_last"


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
        masks = self._recurrent_dropout(inputs[:, 0, ..., : self.filters]) if training else ()
        over_time = ops.transpose(inputs, (1, 0, 2, 3, 4))
        if training:
            states = trained_states(over_time, recurrent, *masks)
        else:
            states = untrained_states(over_time, recurrent)
        return ops.transpose(states, (1, 0, 2, 3, 4)) if self.return_sequences else states[-1]

    def _takes_over(self, sequences: Any, initial_state: Any, mask: Any) -> bool:
        return bool(
            initial_state is None
            and mask is None
            and sequences.shape[1] is not None
            and engine.backend_name() in {"tensorflow", "jax"}
            and self.data_format == "channels_last"
            and set(self.dilation_rate) == {1}
            and all(size % 2 for size in self.kernel_size)
            and self.activation is keras.activations.tanh
            and self.recurrent_activation is keras.activations.sigmoid
            and self.use_bias
            and not self.dropout
            and not (self.stateful or self.return_state or self.go_backwards)
        )

    def _recurrent_dropout(self, state: Any) -> tuple[Any, ...]:
        """One mask (batch, height, width, 4 · filters) of all gates and steps, if there is dropout."""
        if not 0 < self.recurrent_dropout < 1:
            return ()
        if engine.backend_name() == "jax":
            # All four in one draw along one axis, as in `dropout.Dropout`.
            seeds = ops.stack([self.cell.seed_generator.next() for _ in range(4)])
            ones = ops.ones_like(ops.reshape(state, (-1,)))
            drop = functools.partial(keras.random.dropout, ones, self.recurrent_dropout)
            drawn = ops.vectorized_map(lambda seed: drop(seed=seed), seeds)
            masks = [ops.reshape(mask, state.shape) for mask in ops.unstack(drawn)]
        else:
            masks = self.cell.get_recurrent_dropout_mask(state)
            self.cell.reset_recurrent_dropout_mask()
        return (ops.concatenate(list(masks), axis=-1),)

    def _as(self, variable: Any) -> Any:
        return ops.cast(ops.convert_to_tensor(variable), self.compute_dtype)


def convolved(x: Any, kernel: Any, padding: str, strides: Any = 1) -> Any:
    """`x` (batch, steps, height, width, channels), each frame convolved with `kernel` (h, w, in, out)."""
    flat = ops.reshape(x, (-1, *x.shape[2:]))
    flat = ops.conv(flat, kernel, strides=strides, padding=padding, data_format="channels_last")
    return ops.reshape(flat, (-1, x.shape[1], *flat.shape[1:]))


def windows_maximum(x: Any, window: tuple[int, ...]) -> Any:
    """The maximum over windows side by side that fill `x` (batch, steps, height, width, channels).

    Of equal values in a window the first has the gradient, as with Keras.
    """
    steps, height, width, channels = (
        int(n) // size for n, size in zip(x.shape[1:], (*window, 1), strict=True)
    )
    t, h, w = window
    axes, count = (1, 3, 5), t * h * w
    split = (-1, t, height, h, width, w, channels)
    shape, place = (-1, steps, height, width, channels), ops.arange(count, dtype="int32")
    place = ops.reshape(place, (1, t, 1, h, 1, w, 1))

    @ops.custom_gradient  # type: ignore[untyped-decorator]
    def maximum(x: Any) -> Any:
        apart = ops.reshape(x, split)
        top = ops.max(apart, axis=axes, keepdims=True)

        def gradient(*upstream: Any, **_: Any) -> Any:
            first = ops.min(ops.where(ops.less(apart, top), count, place), axis=axes, keepdims=True)
            above = ops.reshape(upstream[-1], (-1, 1, height, 1, width, 1, channels))
            chosen = ops.where(ops.equal(place, first), above, ops.zeros_like(above))
            return ops.reshape(chosen, (-1, *x.shape[1:]))

        return ops.reshape(top, shape), gradient

    return maximum(x)


def _is_xla_on_cpu() -> bool:
    return engine.backend_name() == "jax" and engine.device() == "cpu"
