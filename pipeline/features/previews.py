"""Three small pictures of a clip, from frames that were decoded anyway."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIDE = 128
"""Pixels; smaller frames are kept as they are."""

PICTURES = 3
LARGEST_BYTES = 6144
"""A larger picture is encoded again at a lower quality: noise compresses badly."""

_QUALITIES = (80, 65, 50, 35, 20, 8)


def preview_pictures(frames: NDArray[np.uint8]) -> tuple[bytes, ...]:
    """JPEG files of the frames in the middle of each third of a clip, oldest first.

    frames: (n, size, size, 3) uint8 RGB. Of fewer than three frames each is shown once.
    """
    count = min(PICTURES, len(frames))
    indices = [(2 * i + 1) * len(frames) // (2 * count) for i in range(count)]
    return tuple(jpeg(frames[index]) for index in indices)


def jpeg(frame: NDArray[np.uint8]) -> bytes:
    """One RGB frame as a JPEG file of at most `LARGEST_BYTES`, at most `SIDE` pixels wide."""
    import cv2  # planning a run imports this module and needs no OpenCV

    if max(frame.shape[:2]) > SIDE:
        scale = SIDE / max(frame.shape[:2])
        size = (max(1, round(frame.shape[1] * scale)), max(1, round(frame.shape[0] * scale)))
        frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    picture = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
    for quality in _QUALITIES:
        data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        if len(data) <= LARGEST_BYTES:
            return data
    return b""
