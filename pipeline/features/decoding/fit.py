"""A decoded picture → the square that the backbone looks at."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.features.decoding.values import FramePlan

Picture = NDArray[np.uint8]

_METHODS = {
    "area": cv2.INTER_AREA,
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "nearest": cv2.INTER_NEAREST,
}


def fit_picture(picture: Picture, plan: FramePlan) -> Picture:
    """The picture fitted to (size, size, 3), its channels in the order they came.

    `crop` takes the centre square (the spare pixel of an odd margin stays right or below),
    `squash` the whole picture without its proportions, `pad` the whole picture in the middle of
    black. `area` averages when neither side grows and is linear otherwise.
    """
    if plan.fit == "crop":
        picture = _centre_square(picture)
    if plan.fit == "pad":
        fitted = _padded(picture, plan)
    else:
        fitted = _resize(picture, plan.size, plan.size, plan.interpolation)
    return fitted[:, ::-1] if plan.view == "mirror" else fitted


def write_rgb(picture: Picture, out: Picture) -> None:
    """Write a fitted BGR picture into `out` (size, size, 3) as RGB; cheaper after the fit."""
    cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_BGR2RGB, dst=out)


def turn_upright(picture: Picture, clockwise: int) -> Picture:
    """The picture turned clockwise by 0, 90, 180 or 270 degrees."""
    turns = {
        90: cv2.ROTATE_90_CLOCKWISE,
        180: cv2.ROTATE_180,
        270: cv2.ROTATE_90_COUNTERCLOCKWISE,
    }
    code = turns.get(clockwise % 360)
    return picture if code is None else _uint8(cv2.rotate(picture, code))


def _centre_square(picture: Picture) -> Picture:
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return picture[top : top + side, left : left + side]


def _padded(picture: Picture, plan: FramePlan) -> Picture:
    height, width = picture.shape[:2]
    scale = plan.size / max(height, width)
    new_height, new_width = max(1, round(height * scale)), max(1, round(width * scale))
    canvas = np.zeros((plan.size, plan.size, 3), dtype=np.uint8)
    top, left = (plan.size - new_height) // 2, (plan.size - new_width) // 2
    inner = _resize(picture, new_width, new_height, plan.interpolation)
    canvas[top : top + new_height, left : left + new_width] = inner
    return canvas


def _resize(picture: Picture, width: int, height: int, interpolation: str) -> Picture:
    if picture.shape[:2] == (height, width):
        return picture
    grows = height > picture.shape[0] or width > picture.shape[1]
    method = "linear" if interpolation == "area" and grows else interpolation
    return _uint8(cv2.resize(picture, (width, height), interpolation=_METHODS[method]))


def _uint8(picture: NDArray[np.generic]) -> Picture:
    return picture.astype(np.uint8, copy=False)
