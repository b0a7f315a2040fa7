"""The recurrences of LSTM and GRU over projected inputs, step by step, in Keras operations.

Matrix products run in the type of the inputs (bfloat16 where the policy says so); gates and states
are float32 always, so a long clip does not lose its cell state to rounding.
"""

from __future__ import annotations

from typing import Any

from pipeline import engine
from pipeline.heads.lean import keras

ops = keras.ops


def lstm_states(projected: Any, recurrent: Any, real: Any) -> Any:
    """The LSTM's output at every step, (steps, batch, units) float32.

    `projected` (steps, batch, 4 · units) holds x·W + b with Keras' gate order i, f, c, o;
    `recurrent` (units, 4 · units); `real` (steps, batch, 1) float32 is 1 where a step counts, and
    where it is 0 the state stays. The start state is 0.
    """
    if engine.backend_name() == "torch":
        # Keras' custom gradient for torch takes one output and no constants; autograd does here.
        return _lstm_forward(projected, recurrent, real)[0]
    return _lstm_with_gradient(projected, recurrent, real)


def gru_states(projected: Any, recurrent: Any, bias: Any, real: Any) -> Any:
    """The GRU's output at every step, (steps, batch, units) float32; `reset_after` as in Keras.

    `projected` (steps, batch, 3 · units) holds x·W + b with Keras' gate order z, r, h; `recurrent`
    (units, 3 · units); `bias` (3 · units,) is the recurrent one; `real` as for the LSTM.
    """
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


def _lstm_forward(projected: Any, recurrent: Any, real: Any) -> tuple[Any, list[tuple[Any, ...]]]:
    """All outputs, and per step what the gradient needs: (h before, c before, i, f, g, o, tanh c)."""
    h = ops.zeros_like(ops.cast(projected[0, :, : recurrent.shape[0]], "float32"))
    c = h
    states, kept = [], []
    for t in range(int(projected.shape[0])):
        narrow = ops.cast(h, recurrent.dtype)
        # The first state is 0: its product would be wasted.
        inner = ops.matmul(narrow, recurrent) if t else 0
        z = ops.cast(projected[t] + inner, "float32")
        zi, zf, zg, zo = ops.split(z, 4, axis=-1)
        i, f, g, o = ops.sigmoid(zi), ops.sigmoid(zf), ops.tanh(zg), ops.sigmoid(zo)
        new_c = f * c + i * g
        wave = ops.tanh(new_c)
        kept.append((narrow, c, i, f, g, o, wave))
        h = h + real[t] * (o * wave - h)
        c = c + real[t] * (new_c - c)
        states.append(h)
    return ops.stack(states), kept


def _lstm_backward(
    upstream: Any, recurrent: Any, real: Any, kept: list[tuple[Any, ...]]
) -> tuple[Any, Any]:
    """The gradients of `projected` and `recurrent`: backwards through time, then one product."""
    dh = ops.zeros_like(upstream[0])
    dc = dh
    by_step = []
    turned = ops.transpose(recurrent)
    for t in reversed(range(len(kept))):
        _, c_before, i, f, g, o, wave = kept[t]
        dh = dh + upstream[t]
        dh_new, dc_new = real[t] * dh, real[t] * dc
        dc_all = dc_new + dh_new * o * (1 - wave * wave)
        dz = ops.concatenate(
            [
                dc_all * g * i * (1 - i),
                dc_all * c_before * f * (1 - f),
                dc_all * i * (1 - g * g),
                dh_new * wave * o * (1 - o),
            ],
            axis=-1,
        )
        dz = ops.cast(dz, recurrent.dtype)
        by_step.append(dz)
        dc = dc - dc_new + dc_all * f
        dh = dh - dh_new
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
