"""One step of the LSTM and of the GRU, forwards and backwards; what unrolled and scanned share.

States, gates and their gradients are (batch, units) float32.
"""

from __future__ import annotations

from typing import Any

from pipeline.heads.lean import keras

ops = keras.ops

Kept = tuple[Any, ...]
"""What a step's gradient needs; the state before it, in the type of the matrix products, first."""


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
