"""A decoded picture → the square that the backbone looks at."""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.features.decoding.pictures import Picture
from pipeline.features.decoding.values import FramePlan
from pipeline.features.decoding.video import Frame, Video

_METHODS = {
    "area": cv2.INTER_AREA,
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "nearest": cv2.INTER_NEAREST,
}


def fit_picture(
    picture: Picture, plan: FramePlan, aspect: float = 1.0, out: Picture | None = None
) -> Picture:
    """The picture fitted to (size, size, 3), its channels in the order they came.

    `crop` takes the centre square (the spare pixel of an odd margin stays right or below),
    `squash` the whole picture without its proportions, `pad` the whole picture in the middle of
    black. `area` averages when neither side grows and is linear otherwise.
    aspect: how many times wider than high a pixel is shown; the picture is stretched to that shape
    in the same step. out: contiguous (size, size, 3) uint8 to write into, else fresh.
    """
    if out is None:
        out = np.empty((plan.size, plan.size, 3), np.uint8)
    if plan.fit == "pad":
        out[:] = 0
        _fill(_middle_of(out, picture, aspect), picture, plan.interpolation)
    else:
        if plan.fit == "crop":
            picture = _centre_square(picture, aspect)
        _fill(out, picture, plan.interpolation)
    if plan.view == "mirror":
        out[:] = out[:, ::-1].copy()
    return out


def fitted(video: Video, frame: Frame, plan: FramePlan, out: Picture | None = None) -> Picture:
    """A clip's frame fitted as the plan asks; see `fit_picture`."""
    aspect = video.pixel_aspect if plan.aspect == "display" else 1.0
    picture = video.picture(frame, square_aspect=aspect if plan.fit == "crop" else 0.0)
    return fit_picture(picture, plan, aspect, out)


def _centre_square(picture: Picture, aspect: float) -> Picture:
    """The largest part of the middle that is shown square."""
    height, width = picture.shape[:2]
    side = min(height, width * aspect)
    rows, columns = _pixels(side), _pixels(side / aspect)
    top, left = (height - rows) // 2, (width - columns) // 2
    return picture[top : top + rows, left : left + columns]


def _middle_of(canvas: Picture, picture: Picture, aspect: float) -> Picture:
    """The part of a square canvas that the whole picture fills when it is shown in proportion."""
    height, width = picture.shape[0], picture.shape[1] * aspect
    size = len(canvas)
    scale = size / max(height, width)
    rows, columns = _pixels(height * scale), _pixels(width * scale)
    top, left = (size - rows) // 2, (size - columns) // 2
    return canvas[top : top + rows, left : left + columns]


def _fill(out: Picture, picture: Picture, interpolation: str) -> None:
    height, width = out.shape[:2]
    if picture.shape[:2] == (height, width):
        out[:] = picture
        return
    grows = height > picture.shape[0] or width > picture.shape[1]
    method = "linear" if interpolation == "area" and grows else interpolation
    if out.flags.c_contiguous:
        cv2.resize(picture, (width, height), dst=out, interpolation=_METHODS[method])
    else:
        out[:] = cv2.resize(picture, (width, height), interpolation=_METHODS[method])


def _pixels(length: float) -> int:
    return max(1, round(length))
