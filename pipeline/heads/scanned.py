"""The recurrences as a `scan`: one step is compiled, however long the clip. For JAX.

Both have a gradient of their own, a scan backwards: the gradients of the recurrent weights are then
one product over all steps, where automatic differentiation adds up a weight-sized matrix per step.
"""

from __future__ import annotations

from typing import Any

from pipeline import engine
from pipeline.heads.lean import keras
from pipeline.heads.steps import Kept, gru_step, gru_step_back, lstm_step, lstm_step_back

ops = keras.ops


@ops.custom_gradient  # type: ignore[untyped-decorator]
def lstm_states(projected: Any, recurrent: Any, real: Any) -> Any:
    """As `pipeline.heads.recurrence.lstm_states`."""

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
def gru_states(projected: Any, recurrent: Any, bias: Any, real: Any) -> Any:
    """As `pipeline.heads.recurrence.gru_states`."""

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
