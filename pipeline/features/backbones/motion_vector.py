"""The vector of the `motion` backbone: the numbers of one step, from the flow around what moves.

`hof` (81) and `mbh` (162) are histograms of flow and of its gradients (Dalal, Triggs and Schmid, 2006;
Wang et al., 2011) over 3 × 3 cells; `stat` (18) are statistics of the whole crop. Their order is that
of `motion_channels.CHANNELS`.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.features.backbones.motion_channels import CELLS, DIRECTIONS, QUANTILES

Field = NDArray[np.float32]

CROP = 48
"""Pixels on each side of the crop that a vector is computed from."""
MOVING = 0.05
"""Speed, in sides of the crop per second, from which a pixel counts as moving."""

_CHANGING = 0.005  # gradient of the speed, in sides per second from pixel to pixel
_BINS = DIRECTIONS + 1


def motion_vector(flow: Field) -> Field:
    """(261,) float32 of the flow in a crop, (48, 48, 2): x and y, in sides of the crop per second."""
    u, v = (np.ascontiguousarray(flow[..., axis]) for axis in (0, 1))
    u_x, u_y, v_x, v_y = (*_gradient(u), *_gradient(v))
    histograms = _histograms(np.stack([u, u_x, v_x]), np.stack([v, u_y, v_y]))
    statistics = _statistics(u, v, u_x + v_y, v_x - u_y)
    return np.concatenate([histograms.ravel(), statistics])


def lengths(x: Field, y: Field) -> Field:
    """The length of each vector; faster than `np.hypot`, which guards against overflow."""
    return np.asarray(np.sqrt(x * x + y * y), np.float32)


def _gradient(values: Field) -> tuple[Field, Field]:
    """Per pixel, along x and y."""
    x = cv2.Sobel(values, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8)
    y = cv2.Sobel(values, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8)
    return np.asarray(x, np.float32), np.asarray(y, np.float32)


def _histograms(x: Field, y: Field) -> Field:
    """(3, 81) of three fields (3, 48, 48): eight directions and "still" in each cell.

    A pixel that moves weighs its length, shared by its two nearest directions; a still one weighs
    the threshold. Each number is the square root of its share in the sum of its 81.
    """
    length = lengths(x, y)
    moving = length > _THRESHOLDS
    turns = np.arctan2(y, x) * np.float32(DIRECTIONS / (2 * np.pi))
    lower = np.floor(turns)
    share = turns - lower
    direction = lower.astype(np.int64) % DIRECTIONS
    first = np.where(moving, direction, DIRECTIONS)
    first_weight = np.where(moving, length * (1 - share), _THRESHOLDS)
    second, second_weight = (direction + 1) % DIRECTIONS, np.where(moving, length * share, 0)
    count = len(x) * CELLS**2 * _BINS
    sums = np.bincount((_STARTS + first).ravel(), first_weight.ravel(), count)
    sums += np.bincount((_STARTS + second).ravel(), second_weight.ravel(), count)
    by_field = sums.reshape(len(x), -1)
    shares: Field = np.sqrt(by_field / by_field.sum(1, keepdims=True)).astype(np.float32)
    return shares


def _statistics(u: Field, v: Field, divergence: Field, curl: Field) -> Field:
    """(18,): how fast, how much, where and which way the crop moves."""
    speed = lengths(u, v).astype(np.float64)
    moving = np.where(speed > MOVING, speed, 0)
    sizes = [speed.mean(), speed.std(), *np.quantile(speed, QUANTILES)]
    sizes += [np.abs(divergence).mean(), np.abs(curl).mean()]
    share = np.count_nonzero(moving) / moving.size
    place, means = [0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]
    if (total := moving.sum()) > 0:
        (x, spread_x), (y, spread_y) = (_moments(moving.sum(axis)) for axis in (0, 1))
        place = [x, y, spread_x, spread_y]
        means = [float((moving * values).sum() / total) for values in (u, v, divergence, curl)]
    return np.array(
        [*np.log1p(20 * np.array(sizes)), np.log1p(10 * share), *place, *means], np.float32
    )


def _moments(weights: NDArray[np.float64]) -> tuple[float, float]:
    """Mean and standard deviation of the places of a row of pixels, as shares of the side."""
    places = (np.arange(len(weights)) + 0.5) / len(weights)
    mean = (weights * places).sum() / weights.sum()
    variance = (weights * (places - mean) ** 2).sum() / weights.sum()
    return float(mean), float(np.sqrt(variance))


def _starts() -> NDArray[np.int64]:
    """(3, 48, 48): the first bin of the field and the cell that a pixel belongs to."""
    cell = np.arange(CROP) * CELLS // CROP
    field = np.arange(len(_THRESHOLDS))[:, None, None] * CELLS**2
    starts: NDArray[np.int64] = (field + cell[:, None] * CELLS + cell) * _BINS
    return starts


_THRESHOLDS = np.array([MOVING, _CHANGING, _CHANGING], np.float32)[:, None, None]
_STARTS = _starts()
