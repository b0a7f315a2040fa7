"""OpenCV as a source of frames: the quickest way through a short clip."""

from __future__ import annotations

import math

import cv2
import numpy as np

from pipeline.errors import UnreadableClip
from pipeline.features.decoding.fit import Picture

MOST_FRAMES = 10**9
"""A header that claims more frames than this is not believed."""


class OpenCVSource:
    """One pass over a clip by `grab` and `retrieve`; see `through.Source`.

    Turned upright by OpenCV itself. Raises `UnreadableClip` where OpenCV cannot open the file,
    and `too_large` before a frame is decoded.
    """

    decoder = "opencv"

    def __init__(self, path: str, max_pixels: int) -> None:
        # Named, since the image-sequence reader would take a name with digits or % in it.
        self._capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        if not self._capture.isOpened():
            raise UnreadableClip("unreadable", "OpenCV does not open it")
        self.width = round(self._capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        self.height = round(self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        self.fps = sane_fps(self._capture.get(cv2.CAP_PROP_FPS))
        self.declared = _sane_count(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        check_size(self.width, self.height, max_pixels)

    def grab(self) -> bool:
        return bool(self._capture.grab())

    def retrieve(self) -> Picture | None:
        got, picture = self._capture.retrieve()
        if not got or picture is None or picture.size == 0:
            return None
        return _three_channels(picture)

    def time_s(self) -> float:
        return float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000.0

    def close(self) -> None:
        self._capture.release()


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raise `UnreadableClip` `too_large` for a picture of more than `max_pixels` pixels."""
    if width * height > max_pixels:
        raise UnreadableClip(
            "too_large", f"{width}×{height} is more than {max_pixels} pixels: convert it smaller"
        )


def sane_fps(fps: float) -> float:
    """The rate, or 0.0 where the container's is no positive number."""
    return fps if math.isfinite(fps) and fps > 0 else 0.0


def _sane_count(count: float) -> int:
    return int(count) if math.isfinite(count) and 0 < count <= MOST_FRAMES else 0


def _three_channels(picture: Picture) -> Picture:
    if picture.ndim == 2 or picture.shape[2] == 1:
        picture = cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR).astype(np.uint8, copy=False)
    return picture[:, :, :3]
