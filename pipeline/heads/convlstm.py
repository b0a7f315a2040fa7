"""The recurrence of ConvLSTM over convolved inputs, a step at a time, in Keras operations.

As in `recurrence`, the steps are a `scan` with a gradient of its own: what the steps' gradients need
beside their own states is computed for all steps at once, and so is the gradient of the kernel.

States are (batch, height, width, filters), gates (batch, height, width, 4 · filters) in Keras' order
i, f, c, o; over all steps, with the steps before the batch.
"""

from __future__ import annotations

import functools
from typing import Any

from pipeline import engine
from pipeline.heads.lean import keras
from pipeline.heads.recurrence import lstm_gates

ops = keras.ops

NARROW = 16
"""Up to this many filters the four gates' convolutions of differently masked states are one, of four
times the channels on both sides and three quarters zeros: a short vector is padded anyway."""

Convolutions = list[tuple[Any, Any]]
"""Kernels (h, w, in, out) and what masks the state before each, or None; together 4 · filters out."""


def untrained_states(given: Any, recurrent: Any) -> Any:
    """The states of all steps. `given`: the convolved inputs' gates, with the bias, of all steps.

    recurrent: the states' kernel (h, w, filters, 4 · filters)
    """
    return _states(given, _convolutions(recurrent, ()))[0]


@ops.custom_gradient  # type: ignore[untyped-decorator]
def trained_states(given: Any, recurrent: Any, *mask: Any) -> Any:
    """As `untrained_states`, with a gradient. mask: none, or one that each gate's state is taken times
    (batch, height, width, 4 · filters)."""
    convolutions, start = _convolutions(recurrent, mask), _start(given)
    h, c, z = _states(given, convolutions, keep=True)

    def before(states: Any) -> Any:
        return ops.concatenate([ops.expand_dims(start, 0), states[:-1]], axis=0)

    def gradient(*upstream: Any, **_: Any) -> tuple[Any, ...]:
        dz = _gates_gradient(upstream[-1], convolutions, _slopes(before(c), c, z))
        frames = [_frames(_masked(before(h), masks)) for _, masks in convolutions]
        parts = ops.split(_frames(dz), len(convolutions), axis=-1)
        kernels = [
            engine.kernel_gradient(x, kernel, part)
            for x, (kernel, _), part in zip(frames, convolutions, parts, strict=True)
        ]
        return dz, _own(kernels, int(h.shape[-1])), *(ops.zeros_like(one) for one in mask)

    return h, gradient


def _states(given: Any, convolutions: Convolutions, *, keep: bool = False) -> tuple[Any, ...]:
    """(h,) of all steps; to keep: (h, c, z), z being the gates before their activation."""
    start = _start(given)

    def step(state: Any, x: Any) -> tuple[Any, Any]:
        h, c = state
        inner = [_convolved(_masked(h, mask), kernel) for kernel, mask in convolutions]
        z = x + ops.concatenate(inner, axis=-1)
        (h, c), _ = lstm_gates(c, z)
        return (h, c), (h, c, z) if keep else (h,)

    narrow, wide = (given.dtype, start.shape[1:]), (given.dtype, given.shape[2:])
    outputs = [narrow, narrow, wide] if keep else [narrow]
    return tuple(engine.scan(step, (start, start), (given,), outputs=outputs)[0])


def _gates_gradient(upstream: Any, convolutions: Convolutions, slopes: tuple[Any, ...]) -> Any:
    """The gradient of the gates before their activation, of all steps, from that of the states."""
    turned = [ops.transpose(ops.flip(one, axis=(0, 1)), (0, 1, 3, 2)) for one, _ in convolutions]
    masks, start = [mask for _, mask in convolutions], ops.zeros_like(upstream[0])

    def back(state: Any, above: Any, by_gate: Any, by_state: Any, kept: Any) -> tuple[Any, Any]:
        dh, dc = state
        dh = dh + above
        dc = dc + dh * by_state
        dz = ops.concatenate([dc, dc, dc, dh], axis=-1) * by_gate
        pieces = []
        for part, kernel, mask in zip(ops.split(dz, len(masks), -1), turned, masks, strict=True):
            inner = _convolved(part, kernel)
            inner = inner if mask is None else inner * mask
            pieces += ops.split(inner, int(inner.shape[-1]) // int(dh.shape[-1]), axis=-1)
        return (functools.reduce(ops.add, pieces), dc * kept), (dz,)

    outputs = [(slopes[0].dtype, slopes[0].shape[2:])]
    (dz,), _ = engine.scan(back, (start, start), (upstream, *slopes), outputs=outputs, reverse=True)
    return dz


def _slopes(before: Any, c: Any, z: Any) -> tuple[Any, Any, Any]:
    """What a gradient is taken times: into each gate, from h to c, and from c to the c before it."""
    i, f, g, o = ops.split(z, 4, axis=-1)
    i, f, g, o = ops.sigmoid(i), ops.sigmoid(f), ops.tanh(g), ops.sigmoid(o)
    wave = ops.tanh(c)
    by_gate = [g * i * (1 - i), before * f * (1 - f), i * (1 - g * g), wave * o * (1 - o)]
    return ops.concatenate(by_gate, axis=-1), o * (1 - wave * wave), f


def _convolutions(recurrent: Any, mask: tuple[Any, ...]) -> Convolutions:
    """Those of a step's state: one, or one a gate if each gate has a mask and many filters."""
    if not mask:
        return [(recurrent, None)]
    gates = ops.split(recurrent, 4, axis=-1)
    filters = int(recurrent.shape[2])
    if filters > NARROW:
        return list(zip(gates, ops.split(mask[0], 4, axis=-1), strict=True))
    pads = [[[0, 0], [0, 0], [n * filters, (3 - n) * filters], [0, 0]] for n in range(4)]
    wide = [ops.pad(gate, pad) for gate, pad in zip(gates, pads, strict=True)]
    return [(ops.concatenate(wide, axis=-1), mask[0])]


def _own(kernels: list[Any], filters: int) -> Any:
    """(h, w, filters, 4 · filters) of the gradients of `_convolutions`' kernels."""
    if int(kernels[0].shape[2]) == filters:
        return ops.concatenate(kernels, axis=-1)
    at = [slice(n * filters, (n + 1) * filters) for n in range(4)]
    return ops.concatenate([kernels[0][:, :, one, one] for one in at], axis=-1)


def _masked(state: Any, mask: Any) -> Any:
    if mask is None:
        return state
    copies = int(mask.shape[-1]) // int(state.shape[-1])
    return (ops.concatenate([state] * copies, axis=-1) if copies > 1 else state) * mask


def _convolved(x: Any, kernel: Any) -> Any:
    """`x` (batch, height, width, channels), as large as before."""
    return ops.conv(x, kernel, strides=1, padding="same", data_format="channels_last")


def _start(given: Any) -> Any:
    return ops.zeros_like(given[0, ..., : int(given.shape[-1]) // 4])


def _frames(x: Any) -> Any:
    """(steps, batch, height, width, channels) → (steps · batch, height, width, channels)."""
    return ops.reshape(x, (-1, *x.shape[2:]))
