"""Clips made for tests: every frame carries its own number in its pixels."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BITS = 16
CELL = 8


def numbered_picture(number: int, width: int = 160, height: int = 96) -> np.ndarray:
    """(height, width, 3) uint8 RGB with the number as 16 black or white cells, in the middle."""
    picture = np.full((height, width, 3), 96, dtype=np.uint8)
    top, left = (height - 2 * CELL) // 2, (width - 8 * CELL) // 2
    for bit in range(BITS):
        y, x = top + bit // 8 * CELL, left + bit % 8 * CELL
        picture[y : y + CELL, x : x + CELL] = 255 if number >> bit & 1 else 0
    return picture


def number_in(picture: np.ndarray) -> int:
    """The number painted into a picture of the original size, upright."""
    height, width = picture.shape[:2]
    top, left = (height - 2 * CELL) // 2, (width - 8 * CELL) // 2
    grey = picture.mean(axis=2)
    number = 0
    for bit in range(BITS):
        y, x = top + bit // 8 * CELL, left + bit % 8 * CELL
        number |= int(grey[y + 2 : y + CELL - 2, x + 2 : x + CELL - 2].mean() > 128) << bit
    return number


def write_numbered_clip(
    path: Path,
    frames: int,
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rate: int = 25,
    width: int = 160,
    height: int = 96,
    options: dict[str, str] | None = None,
    times: Iterable[int] | None = None,
) -> Path:
    """Write frames 0, 1, … `frames` − 1 to `path`; `times` are presentation times in 1/rate s."""
    pictures = (numbered_picture(number, width, height) for number in range(frames))
    return write_pictures(
        path, pictures, codec=codec, pix_fmt=pix_fmt, rate=rate, options=options, times=times
    )


def write_pictures(
    path: Path,
    pictures: Iterable[np.ndarray],
    *,
    codec: str,
    pix_fmt: str,
    rate: int = 25,
    options: dict[str, str] | None = None,
    times: Iterable[int] | None = None,
) -> Path:
    """Write pictures, each (height, width, 3) uint8 RGB and all of one size, as a clip."""
    whole = list(pictures)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = whole[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.options = options or {}
        stream.codec_context.thread_count = 1
        for picture, time in zip(whole, times or itertools.count(), strict=False):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
