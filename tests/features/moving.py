"""Clips painted with a known motion: a textured patch over a textured ground, each moved on its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import cv2
import numpy as np

Matrix = np.ndarray
"""2 × 3: where a point of the first frame, in pixels from the picture's middle, lies later."""

HEIGHT, WIDTH = 108, 192
PATCH = 30
"""Pixels from the middle of the patch to its edge."""


def shift(x: float, y: float) -> Matrix:
    return np.array([[1, 0, x], [0, 1, y]], float)


def zoom(factor: float) -> Matrix:
    return np.array([[factor, 0, 0], [0, factor, 0]], float)


def turn(angle: float) -> Matrix:
    """angle: radians, clockwise on the screen."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin, 0], [sin, cos, 0]])


STILL = shift(0, 0)


@cache
def texture(seed: int) -> np.ndarray:
    """(400, 400) uint8 of soft blots, large enough to be moved about."""
    noise = np.random.default_rng(seed).random((400, 400), np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), 2.5)
    return cv2.normalize(soft, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def painted(ground: Matrix, patch: Matrix, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """(height, width, 3) uint8 RGB: the ground and the patch where these have brought them."""
    picture = _moved(texture(1), ground, height, width)
    over = _moved(texture(2), patch, height, width)
    disc = np.zeros((400, 400), np.uint8)
    cv2.circle(disc, (200, 200), PATCH, 255, -1, cv2.LINE_AA)
    alpha = _moved(disc, patch, height, width)[..., None].astype(np.float32) / 255
    mixed = picture[..., None] * (1 - alpha) + over[..., None] * alpha
    return np.repeat(np.round(mixed).astype(np.uint8), 3, axis=2)


def steps_of(
    ground: Callable[[float], Matrix],
    patch: Callable[[float], Matrix],
    times: np.ndarray,
    gap_s: float = 0.1,
) -> np.ndarray:
    """(n, 2, height, width, 3): the frames at these times and `gap_s` later, for functions of time."""
    pairs = [[painted(ground(t), patch(t)) for t in (time, time + gap_s)] for time in times]
    return np.array(pairs)


def _moved(picture: np.ndarray, matrix: Matrix, height: int, width: int) -> np.ndarray:
    to_middle = np.array([(width - 1) / 2, (height - 1) / 2])
    whole = matrix.copy()
    whole[:, 2] += to_middle - matrix[:, :2] @ np.array([200.0, 200.0])
    return np.asarray(cv2.warpAffine(picture, whole, (width, height), flags=cv2.INTER_CUBIC))
