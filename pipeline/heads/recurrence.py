"""The recurrences of LSTM and GRU over projected inputs, step by step, in Keras operations.

Matrix products run in the dtype of the inputs (bfloat16 if the policy says so); gates and states
are always float32, so that a long clip does not lose its cell state to rounding. The steps are a
`scan`: forty unrolled ones take seconds to trace, and XLA most of a minute. Each has a gradient of its
own, a scan backwards: the gradients of the recurrent weights are then one product over all steps, where
automatic differentiation adds up a weight-sized matrix per step.

States, gates and their gradients are (batch, units) float32.
"""

from __future__ import annotations

from typing import Any

from pipeline import engine
from pipeline.heads.lean import keras

ops = keras.ops

Kept = tuple[Any, ...]
"""What a step's gradient needs beside its inputs."""


def lstm_states(projected: Any, recurrent: Any, real: Any, *, training: Any) -> Any:
    """The LSTM's output at every step, (steps, batch, units) float32.

    `projected` (steps, batch, 4 · units) holds x·W + b with Keras' gate order i, f, c, o;
    `recurrent` (units, 4 · units); `real` (steps, batch, 1) float32 is 1 where a step counts, and
    where it is 0 the state stays. The start state is 0.
    """
    if engine.backend_name() == "torch":
        # Keras' custom gradient for torch takes one output and no constants; autograd does here.
        h = c = _start(projected, recurrent)
        states = []
        for t in range(int(projected.shape[0])):
            inner = ops.matmul(ops.cast(h, recurrent.dtype), recurrent)
            (h, c), _ = lstm_step(h, c, projected[t] + inner, real[t])
            states.append(h)
        return ops.stack(states)
    if not training:
        return _lstm_scan(projected, recurrent, real)[0]
    return _lstm_states(projected, recurrent, real)


def gru_states(projected: Any, recurrent: Any, bias: Any, real: Any, *, training: Any) -> Any:
    """The GRU's output at every step, (steps, batch, units) float32; `reset_after` as in Keras.

    `projected` (steps, batch, 3 · units) holds x·W + b with Keras' gate order z, r, h; `recurrent`
    (units, 3 · units); `bias` (3 · units,) is the recurrent one; `real` as for the LSTM.
    """
    if engine.backend_name() == "torch":
        h = _start(projected, recurrent)
        states = []
        for t in range(int(projected.shape[0])):
            inner = ops.matmul(ops.cast(h, recurrent.dtype), recurrent) + bias
            h, _ = gru_step(h, projected[t], inner, real[t])
            states.append(h)
        return ops.stack(states)
    if not training:
        return _gru_scan(projected, recurrent, bias, real)[0]
    return _gru_states(projected, recurrent, bias, real)


def _lstm_scan(projected: Any, recurrent: Any, real: Any, *, keep: int = 0) -> tuple[Any, Any]:
    """All states, and the first `keep` values of what every step keeps."""
    units = int(recurrent.shape[0])

    def step(state: Any, x: Any, counts: Any) -> tuple[Any, Any]:
        h, c = state
        inner = ops.matmul(ops.cast(h, recurrent.dtype), recurrent)
        (h, c), kept = lstm_step(h, c, x + inner, counts)
        return (h, c), (h, *kept[:keep])

    none = _start(projected, recurrent)
    state = [("float32", (units,))]
    (states,), kept = engine.scan(
        step, (none, none), (projected, real), outputs=state, keep=keep * state
    )
    return states, kept


@ops.custom_gradient  # type: ignore[untyped-decorator]
def _lstm_states(projected: Any, recurrent: Any, real: Any) -> Any:
    units, none = int(recurrent.shape[0]), _start(projected, recurrent)
    states, kept = _lstm_scan(projected, recurrent, real, keep=6)

    def gradient(*upstream: Any, **_: Any) -> tuple[Any, Any, Any]:
        turned = ops.transpose(recurrent)

        def back(state: Any, above: Any, counts: Any, *kept: Any) -> tuple[Any, Any]:
            dh, dc = state
            dz, dh, dc = lstm_step_back(dh + above, dc, counts, kept)
            dz = ops.cast(dz, recurrent.dtype)
            return (dh + ops.cast(ops.matmul(dz, turned), "float32"), dc), (dz,)

        (dz,), _kept = engine.scan(
            back,
            (none, none),
            (upstream[-1], real),
            outputs=[(recurrent.dtype, (4 * units,))],
            kept=kept,
            reverse=True,
        )
        before = _before(none, states, recurrent.dtype)
        return ops.cast(dz, projected.dtype), _gathered(before, dz), ops.zeros_like(real)

    return states, gradient


def _gru_scan(
    projected: Any, recurrent: Any, bias: Any, real: Any, *, keep: int = 0
) -> tuple[Any, Any]:
    """As `_lstm_scan`."""
    units = int(recurrent.shape[0])

    def step(state: Any, x: Any, counts: Any) -> tuple[Any, Any]:
        (h,) = state
        inner = ops.matmul(ops.cast(h, recurrent.dtype), recurrent) + bias
        h, kept = gru_step(h, x, inner, counts)
        return (h,), (h, *kept[:keep])

    none = _start(projected, recurrent)
    state = [("float32", (units,))]
    (states,), kept = engine.scan(
        step, (none,), (projected, real), outputs=state, keep=keep * state
    )
    return states, kept


@ops.custom_gradient  # type: ignore[untyped-decorator]
def _gru_states(projected: Any, recurrent: Any, bias: Any, real: Any) -> Any:
    units, none = int(recurrent.shape[0]), _start(projected, recurrent)
    states, kept = _gru_scan(projected, recurrent, bias, real, keep=5)

    def gradient(*upstream: Any, **_: Any) -> tuple[Any, Any, Any, Any]:
        turned = ops.transpose(recurrent)

        def back(state: Any, above: Any, counts: Any, *kept: Any) -> tuple[Any, Any]:
            dx, dinner, dh = gru_step_back(state[0] + above, counts, kept)
            dinner = ops.cast(dinner, recurrent.dtype)
            dh = dh + ops.cast(ops.matmul(dinner, turned), "float32")
            return (dh,), (ops.cast(dx, projected.dtype), dinner)

        (dx, dinner), _kept = engine.scan(
            back,
            (none,),
            (upstream[-1], real),
            outputs=[(projected.dtype, (3 * units,)), (recurrent.dtype, (3 * units,))],
            kept=kept,
            reverse=True,
        )
        before = _before(none, states, recurrent.dtype)
        d_bias = ops.cast(ops.sum(ops.cast(dinner, "float32"), axis=(0, 1)), bias.dtype)
        return dx, _gathered(before, dinner), d_bias, ops.zeros_like(real)

    return states, gradient


def _start(projected: Any, recurrent: Any) -> Any:
    return ops.zeros_like(ops.cast(projected[0, :, : recurrent.shape[0]], "float32"))


def _before(start: Any, states: Any, dtype: Any) -> Any:
    """The states before each step, in the type of the matrix products."""
    return ops.cast(ops.concatenate([ops.expand_dims(start, 0), states[:-1]], axis=0), dtype)


def _gathered(before: Any, gradient: Any) -> Any:
    """The recurrent weights' gradient: all steps' states times all steps' gradients, one product."""
    units, wide = before.shape[-1], gradient.shape[-1]
    return ops.matmul(
        ops.transpose(ops.reshape(before, (-1, units))), ops.reshape(gradient, (-1, wide))
    )


def lstm_step(h: Any, c: Any, z: Any, real: Any) -> tuple[tuple[Any, Any], Kept]:
    """((h, c), kept) after one step.

    `z` (batch, 4 · units): projected inputs plus the recurrent product, gates i, f, c, o. `real`
    (batch, 1): where it is 0 both states stay.
    """
    (new_h, new_c), kept = lstm_gates(c, ops.cast(z, "float32"))
    return (h + real * (new_h - h), c + real * (new_c - c)), kept


def lstm_gates(c: Any, z: Any) -> tuple[tuple[Any, Any], Kept]:
    """((h, c), kept) of a step that counts, in the type of `z` (batch, …, 4 · units)."""
    zi, zf, zg, zo = ops.split(z, 4, axis=-1)
    i, f, g, o = ops.sigmoid(zi), ops.sigmoid(zf), ops.tanh(zg), ops.sigmoid(zo)
    new_c = f * c + i * g
    wave = ops.tanh(new_c)
    return (o * wave, new_c), (c, i, f, g, o, wave)


def lstm_step_back(dh: Any, dc: Any, real: Any, kept: Kept) -> tuple[Any, Any, Any]:
    """(dz, dh, dc) before the step, from the gradients of its h and c after it.

    `dz` (batch, 4 · units); its product with the recurrent weights is not in `dh` yet.
    """
    c_before, i, f, g, o, wave = kept
    dh_new, dc_new = real * dh, real * dc
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
    return dz, dh - dh_new, dc - dc_new + dc_all * f


def gru_step(h: Any, x: Any, inner: Any, real: Any) -> tuple[Any, Kept]:
    """(h, kept) after one step; `x` and `inner` (batch, 3 · units), gates z, r, h."""
    xz, xr, xh = ops.split(ops.cast(x, "float32"), 3, axis=-1)
    hz, hr, hh = ops.split(ops.cast(inner, "float32"), 3, axis=-1)
    z, r = ops.sigmoid(xz + hz), ops.sigmoid(xr + hr)
    wave = ops.tanh(xh + r * hh)
    new = z * h + (1 - z) * wave
    return h + real * (new - h), (h, z, r, wave, hh)


def gru_step_back(dh: Any, real: Any, kept: Kept) -> tuple[Any, Any, Any]:
    """(dx, dinner, dh) before the step, from the gradient of its h after it.

    `dx` and `dinner` (batch, 3 · units); the product of `dinner` with the recurrent weights is not
    in `dh` yet.
    """
    h, z, r, wave, hh = kept
    dh_new = real * dh
    d_wave = dh_new * (1 - z) * (1 - wave * wave)
    dz = dh_new * (h - wave) * z * (1 - z)
    dr = d_wave * hh * r * (1 - r)
    dx = ops.concatenate([dz, dr, d_wave], axis=-1)
    dinner = ops.concatenate([dz, dr, d_wave * r], axis=-1)
    return dx, dinner, dh - dh_new + dh_new * z
