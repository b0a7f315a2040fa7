"""The recurrences of LSTM and GRU over projected inputs, step by step, in Keras operations.

Matrix products run in the type of the inputs (bfloat16 where the policy says so); gates and states
are float32 always, so a long clip does not lose its cell state to rounding. Under JAX the steps are
a `scan` (`pipeline.heads.scanned`): forty unrolled ones take XLA most of a minute to compile.
"""

from __future__ import annotations

from typing import Any

from pipeline import engine
from pipeline.heads import scanned
from pipeline.heads.lean import keras
from pipeline.heads.steps import Kept, lstm_step, lstm_step_back

ops = keras.ops


def lstm_states(projected: Any, recurrent: Any, real: Any) -> Any:
    """The LSTM's output at every step, (steps, batch, units) float32.

    `projected` (steps, batch, 4 · units) holds x·W + b with Keras' gate order i, f, c, o;
    `recurrent` (units, 4 · units); `real` (steps, batch, 1) float32 is 1 where a step counts, and
    where it is 0 the state stays. The start state is 0.
    """
    if engine.backend_name() == "jax":
        return scanned.lstm_states(projected, recurrent, real)
    if engine.backend_name() == "torch":
        # Keras' custom gradient for torch takes one output and no constants; autograd does here.
        return _lstm_forward(projected, recurrent, real)[0]
    return _lstm_with_gradient(projected, recurrent, real)


def gru_states(projected: Any, recurrent: Any, bias: Any, real: Any) -> Any:
    """The GRU's output at every step, (steps, batch, units) float32; `reset_after` as in Keras.

    `projected` (steps, batch, 3 · units) holds x·W + b with Keras' gate order z, r, h; `recurrent`
    (units, 3 · units); `bias` (3 · units,) is the recurrent one; `real` as for the LSTM.
    """
    if engine.backend_name() == "jax":
        return scanned.gru_states(projected, recurrent, bias, real)
    h = ops.zeros_like(ops.cast(projected[0, :, : recurrent.shape[0]], "float32"))
    states = []
    # Unstacked, not indexed: the gradient of an index is a zero of the whole sequence, every step.
    for t, step in enumerate(ops.unstack(ops.cast(projected, "float32"), axis=0)):
        inner = ops.cast(ops.matmul(ops.cast(h, recurrent.dtype), recurrent) + bias, "float32")
        xz, xr, xh = ops.split(step, 3, axis=-1)
        hz, hr, hh = ops.split(inner, 3, axis=-1)
        z, r = ops.sigmoid(xz + hz), ops.sigmoid(xr + hr)
        new = z * h + (1 - z) * ops.tanh(xh + r * hh)
        h = h + real[t] * (new - h)
        states.append(h)
    return ops.stack(states)


def _lstm_forward(projected: Any, recurrent: Any, real: Any) -> tuple[Any, list[Kept]]:
    """All outputs, and per step what the gradient needs."""
    h = ops.zeros_like(ops.cast(projected[0, :, : recurrent.shape[0]], "float32"))
    c = h
    states, kept = [], []
    for t in range(int(projected.shape[0])):
        narrow = ops.cast(h, recurrent.dtype)
        # The first state is 0: its product would be wasted.
        inner = ops.matmul(narrow, recurrent) if t else 0
        h, c, step = lstm_step(h, c, projected[t] + inner, real[t], narrow)
        kept.append(step)
        states.append(h)
    return ops.stack(states), kept


def _lstm_backward(upstream: Any, recurrent: Any, real: Any, kept: list[Kept]) -> tuple[Any, Any]:
    """The gradients of `projected` and `recurrent`: backwards through time, then one product."""
    dh = ops.zeros_like(upstream[0])
    dc = dh
    by_step = []
    turned = ops.transpose(recurrent)
    for t in reversed(range(len(kept))):
        dz, dh, dc = lstm_step_back(dh + upstream[t], dc, real[t], kept[t])
        dz = ops.cast(dz, recurrent.dtype)
        by_step.append(dz)
        if t:
            dh = dh + ops.cast(ops.matmul(dz, turned), "float32")
    by_step.reverse()
    gradient = ops.stack(by_step)
    units = recurrent.shape[0]
    before = ops.reshape(ops.stack([step[0] for step in kept]), (-1, units))
    return gradient, ops.matmul(ops.transpose(before), ops.reshape(gradient, (-1, 4 * units)))


@ops.custom_gradient  # type: ignore[untyped-decorator]
def _lstm_with_gradient(projected: Any, recurrent: Any, real: Any) -> Any:
    states, kept = _lstm_forward(projected, recurrent, real)

    def gradient(*upstream: Any, **_: Any) -> tuple[Any, Any, Any]:
        d_projected, d_recurrent = _lstm_backward(upstream[-1], recurrent, real, kept)
        return d_projected, d_recurrent, ops.zeros_like(real)

    return states, gradient
