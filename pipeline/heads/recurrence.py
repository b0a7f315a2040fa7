"""The recurrences of LSTM and GRU over projected inputs, step by step, in Keras operations.

Matrix products run in the dtype of the inputs (bfloat16 if the policy says so); gates and states
are always float32, so that a long clip does not lose its cell state to rounding. The steps are unrolled;
under JAX they are a `scan`, which compiles one step however long the clip: forty unrolled ones take XLA
most of a minute. Each scan has a gradient of its own, a scan backwards: the gradients of the recurrent
weights are then one product over all steps, where automatic differentiation adds up a weight-sized
matrix per step.

States, gates and their gradients are (batch, units) float32.
"""

from __future__ import annotations

from typing import Any

from pipeline import engine
from pipeline.heads.lean import keras

ops = keras.ops

Kept = tuple[Any, ...]
"""What a step's gradient needs; the state before it, in the type of the matrix products, first."""


def lstm_states(projected: Any, recurrent: Any, real: Any) -> Any:
    """The LSTM's output at every step, (steps, batch, units) float32.

    `projected` (steps, batch, 4 · units) holds x·W + b with Keras' gate order i, f, c, o;
    `recurrent` (units, 4 · units); `real` (steps, batch, 1) float32 is 1 where a step counts, and
    where it is 0 the state stays. The start state is 0.
    """
    if engine.backend_name() == "jax":
        return lstm_states_scanned(projected, recurrent, real)
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
        return gru_states_scanned(projected, recurrent, bias, real)
    h = ops.zeros_like(ops.cast(projected[0, :, : recurrent.shape[0]], "float32"))
    states = []
    # Unstacked, not indexed: the gradient of an index is a zero of the whole sequence, every step.
    for t, step in enumerate(ops.unstack(ops.cast(projected, "float32"), axis=0)):
        narrow = ops.cast(h, recurrent.dtype)
        h, _ = gru_step(h, step, ops.matmul(narrow, recurrent) + bias, real[t], narrow)
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


@ops.custom_gradient  # type: ignore[untyped-decorator]
def lstm_states_scanned(projected: Any, recurrent: Any, real: Any) -> Any:
    """As `lstm_states`, as a scan with a gradient that scans backwards."""

    def step(state: tuple[Any, Any], inputs: tuple[Any, Any]) -> tuple[Any, Any]:
        h, c = state
        x, counts = inputs
        narrow = ops.cast(h, recurrent.dtype)
        h, c, kept = lstm_step(h, c, x + ops.matmul(narrow, recurrent), counts, narrow)
        return (h, c), (h, kept)

    start = _start(projected, recurrent)
    _, (states, kept) = ops.scan(step, (start, start), (projected, real), unroll=_unroll())

    def gradient(*upstream: Any, **_: Any) -> tuple[Any, Any, Any]:
        turned = ops.transpose(recurrent)

        def back(state: tuple[Any, Any], inputs: tuple[Any, Any, Kept]) -> tuple[Any, Any]:
            (dh, dc), (above, counts, kept) = state, inputs
            dz, dh, dc = lstm_step_back(dh + above, dc, counts, kept)
            dz = ops.cast(dz, recurrent.dtype)
            return (dh + ops.cast(ops.matmul(dz, turned), "float32"), dc), dz

        none = ops.zeros_like(start)
        inputs = (upstream[-1], real, kept)
        _, dz = ops.scan(back, (none, none), inputs, reverse=True, unroll=_unroll())
        return ops.cast(dz, projected.dtype), _gathered(kept[0], dz), ops.zeros_like(real)

    return states, gradient


@ops.custom_gradient  # type: ignore[untyped-decorator]
def gru_states_scanned(projected: Any, recurrent: Any, bias: Any, real: Any) -> Any:
    """As `gru_states`, as a scan with a gradient that scans backwards."""

    def step(h: Any, inputs: tuple[Any, Any]) -> tuple[Any, Any]:
        x, counts = inputs
        narrow = ops.cast(h, recurrent.dtype)
        h, kept = gru_step(h, x, ops.matmul(narrow, recurrent) + bias, counts, narrow)
        return h, (h, kept)

    start = _start(projected, recurrent)
    _, (states, kept) = ops.scan(step, start, (projected, real), unroll=_unroll())

    def gradient(*upstream: Any, **_: Any) -> tuple[Any, Any, Any, Any]:
        turned = ops.transpose(recurrent)

        def back(dh: Any, inputs: tuple[Any, Any, Kept]) -> tuple[Any, Any]:
            above, counts, kept = inputs
            dx, dinner, dh = gru_step_back(dh + above, counts, kept)
            dinner = ops.cast(dinner, recurrent.dtype)
            dh = dh + ops.cast(ops.matmul(dinner, turned), "float32")
            return dh, (ops.cast(dx, projected.dtype), dinner)

        inputs = (upstream[-1], real, kept)
        none = ops.zeros_like(start)
        _, (dx, dinner) = ops.scan(back, none, inputs, reverse=True, unroll=_unroll())
        d_bias = ops.cast(ops.sum(ops.cast(dinner, "float32"), axis=(0, 1)), bias.dtype)
        return dx, _gathered(kept[0], dinner), d_bias, ops.zeros_like(real)

    return states, gradient


def _unroll() -> int:
    # On an H100, one step a turn: an LSTM of 4096 takes 8.0 ms, a GRU of 512 1.3 ms; eight: 7.5 and
    # 0.9; all forty: 7.0, and four times as long to compile. On a CPU one is the fastest.
    return 8 if engine.device() == "gpu" else 1


def _start(projected: Any, recurrent: Any) -> Any:
    return ops.zeros((projected.shape[1], recurrent.shape[0]), "float32")


def _gathered(before: Any, gradient: Any) -> Any:
    """The recurrent weights' gradient: all steps' states times all steps' gradients, one product."""
    units, wide = before.shape[-1], gradient.shape[-1]
    return ops.matmul(
        ops.transpose(ops.reshape(before, (-1, units))), ops.reshape(gradient, (-1, wide))
    )


def lstm_step(h: Any, c: Any, z: Any, real: Any, narrow: Any) -> tuple[Any, Any, Kept]:
    """(h, c, kept) after one step.

    `z` (batch, 4 · units): projected inputs plus the recurrent product, gates i, f, c, o. `real`
    (batch, 1): where it is 0 both states stay. `narrow`: h in the type of the matrix products.
    """
    zi, zf, zg, zo = ops.split(ops.cast(z, "float32"), 4, axis=-1)
    i, f, g, o = ops.sigmoid(zi), ops.sigmoid(zf), ops.tanh(zg), ops.sigmoid(zo)
    new_c = f * c + i * g
    wave = ops.tanh(new_c)
    kept = (narrow, c, i, f, g, o, wave)
    return h + real * (o * wave - h), c + real * (new_c - c), kept


def lstm_step_back(dh: Any, dc: Any, real: Any, kept: Kept) -> tuple[Any, Any, Any]:
    """(dz, dh, dc) before the step, from the gradients of its h and c after it.

    `dz` (batch, 4 · units); its product with the recurrent weights is not in `dh` yet.
    """
    _, c_before, i, f, g, o, wave = kept
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


def gru_step(h: Any, x: Any, inner: Any, real: Any, narrow: Any) -> tuple[Any, Kept]:
    """(h, kept) after one step; `x` and `inner` (batch, 3 · units), gates z, r, h."""
    xz, xr, xh = ops.split(ops.cast(x, "float32"), 3, axis=-1)
    hz, hr, hh = ops.split(ops.cast(inner, "float32"), 3, axis=-1)
    z, r = ops.sigmoid(xz + hz), ops.sigmoid(xr + hr)
    wave = ops.tanh(xh + r * hh)
    new = z * h + (1 - z) * wave
    return h + real * (new - h), (narrow, h, z, r, wave, hh)


def gru_step_back(dh: Any, real: Any, kept: Kept) -> tuple[Any, Any, Any]:
    """(dx, dinner, dh) before the step, from the gradient of its h after it.

    `dx` and `dinner` (batch, 3 · units); the product of `dinner` with the recurrent weights is not
    in `dh` yet.
    """
    _, h, z, r, wave, hh = kept
    dh_new = real * dh
    d_wave = dh_new * (1 - z) * (1 - wave * wave)
    dz = dh_new * (h - wave) * z * (1 - z)
    dr = d_wave * hh * r * (1 - r)
    dx = ops.concatenate([dz, dr, d_wave], axis=-1)
    dinner = ops.concatenate([dz, dr, d_wave * r], axis=-1)
    return dx, dinner, dh - dh_new + dh_new * z
