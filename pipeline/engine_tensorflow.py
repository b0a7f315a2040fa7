"""TensorFlow's part of `pipeline.engine`: a compiled model, a loop over steps.

Imported where TensorFlow is the backend.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import tensorflow as tf

MOST_STEPS = 8
"""Steps that are traced; the graph loops over them. Forty traced steps cost seconds at the first batch,
one at a time makes narrow layers half as fast again."""


def compiled(model: Any, shape: tuple[int, ...], dtype: str) -> Callable[[np.ndarray], np.ndarray]:
    """As `pipeline.engine.compiled`."""
    signature = [tf.TensorSpec(shape, dtype)]
    # Without XLA: on a CPU it slows convolutions (25 against 32 frames/s for InceptionV3).
    function = tf.function(
        lambda inputs: model(inputs, training=False), input_signature=signature, jit_compile=False
    )
    concrete = function.get_concrete_function()
    return lambda inputs: np.asarray(concrete(tf.constant(inputs)).numpy())


def scan(
    step: Callable[..., Any],
    state: Sequence[Any],
    inputs: Sequence[Any],
    *,
    outputs: Sequence[tuple[str, tuple[int, ...]]],
    keep: Sequence[tuple[str, tuple[int, ...]]] = (),
    kept: Sequence[Any] = (),
    reverse: bool = False,
) -> tuple[list[Any], list[Any]]:
    """As `pipeline.engine.scan`. What is kept stays a `TensorArray`: it is not copied."""
    steps: Any = inputs[0].shape[0]
    turn = 1
    if steps is None:
        steps = tf.shape(inputs[0])[0]
    else:
        # Convolutions are long enough that a turn of the loop is nothing beside them.
        most = MOST_STEPS if len(state[0].shape) == 2 else 1
        turn = max(n for n in range(1, most + 1) if steps % n == 0)
    given = [tf.TensorArray(x.dtype, steps, clear_after_read=False).unstack(x) for x in inputs]
    given += kept
    made = [
        tf.TensorArray(dtype, steps, clear_after_read=False, element_shape=(None, *shape))
        for dtype, shape in (*outputs, *keep)
    ]

    def several(number: Any, state: Any, made: Any) -> Any:
        for _ in range(turn):
            at = steps - 1 - number if reverse else number
            state, values = step(state, *(one.read(at) for one in given))
            made = [one.write(at, value) for one, value in zip(made, values, strict=True)]
            number = number + 1
        return number, list(state), made

    start = (tf.constant(0), list(state), made)
    if inputs[0].shape[0] == turn:
        _, _, made = several(*start)
    else:
        _, _, made = tf.while_loop(lambda number, state, made: number < steps, several, start)
    return [one.stack() for one in made[: len(outputs)]], made[len(outputs) :]


def device() -> Literal["gpu", "cpu"]:
    """ "gpu" where TensorFlow can use one, else "cpu"."""
    return "gpu" if tf.config.list_physical_devices("GPU") else "cpu"


def kernel_gradient(x: Any, kernel: Any, upstream: Any) -> Any:
    """As `pipeline.engine.kernel_gradient`."""
    return tf.raw_ops.Conv2DBackpropFilter(
        input=x,
        filter_sizes=kernel.shape,
        out_backprop=upstream,
        strides=[1, 1, 1, 1],
        padding="SAME",
    )
