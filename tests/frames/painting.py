"""Pictures that carry their number and show which way is up, and how to read both back.

Bar code: eight cells (the lowest bit left) over eight cells of the complement, in the upper half.
Orientation: a white patch at the lower left, a black one at the lower right. Between them lies a
smooth colour wave that moves with the number. Everything is in proportion to the picture's size,
and within its centre square at 4:3.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

BITS = 8
_LEFT, _RIGHT = 16 / 128, 112 / 128  # of the width: what the bar code spans
_ROWS = (10 / 96, 24 / 96, 38 / 96)  # of the height: bits, their complement, end
_WAVE = (44 / 96, 70 / 96)
_PATCH_ROWS = (74 / 96, 90 / 96)
_PATCHES = ((18 / 128, 46 / 128), (82 / 128, 110 / 128))


def painted(number: int, width: int = 128, height: int = 96) -> Picture:
    """(height, width, 3) uint8 RGB with `number` (0 to 255) in it."""
    picture = np.full((height, width, 3), 110, dtype=np.uint8)
    for bit in range(BITS):
        x = _span(
            _LEFT + (_RIGHT - _LEFT) * bit / BITS,
            _LEFT + (_RIGHT - _LEFT) * (bit + 1) / BITS,
            width,
        )
        on = number >> bit & 1
        picture[_span(_ROWS[0], _ROWS[1], height), x] = 235 if on else 20
        picture[_span(_ROWS[1], _ROWS[2], height), x] = 20 if on else 235
    columns = np.linspace(0, 2 * np.pi, width, endpoint=False)
    phases = np.array([0, 2 * np.pi / 3, 4 * np.pi / 3])
    wave = 128 + 80 * np.sin(columns[:, None] + phases + number * 0.35)
    picture[_span(*_WAVE, height)] = wave.astype(np.uint8)
    for columns_of, value in zip(_PATCHES, (235, 20), strict=True):
        picture[_span(*_PATCH_ROWS, height), _span(*columns_of, width)] = value
    return picture


def number_in(picture: Picture) -> int | None:
    """The number of an upright picture; None where its bar code or its patches are not in place.

    picture: (height, width, 3) uint8, of any size, not cropped.
    """
    grey = picture.astype(np.float32).mean(axis=2)
    white, black = (_mean(grey, _PATCH_ROWS, columns) for columns in _PATCHES)
    if white - black < _CONTRAST:
        return None
    number = 0
    for bit in range(BITS):
        cell = (_LEFT + (_RIGHT - _LEFT) * bit / BITS, _LEFT + (_RIGHT - _LEFT) * (bit + 1) / BITS)
        upper, lower = (_mean(grey, rows, cell) for rows in (_ROWS[:2], _ROWS[1:]))
        if abs(upper - lower) < _CONTRAST:
            return None
        number |= int(upper > lower) << bit
    return number


_CONTRAST = 60


def turned_ways(picture: Picture) -> list[str]:
    """Which of the eight turns and mirrors of the picture are upright: `as is` alone, if all is well."""
    found = []
    for mirrored, quarters in product((False, True), range(4)):
        turned = np.rot90(picture[:, ::-1] if mirrored else picture, -quarters)
        if number_in(turned) is not None:
            words = ["mirrored"] * mirrored + [f"turned by {90 * quarters}°"] * bool(quarters)
            found.append(" and ".join(words) or "as is")
    return found


def _span(begin: float, end: float, size: int) -> slice:
    return slice(round(begin * size), round(end * size))


def _mean(grey: NDArray[np.float32], rows: tuple[float, ...], columns: tuple[float, ...]) -> float:
    """The mean of the middle of an area, away from its edges."""
    middle = []
    for (begin, end), size in zip((rows, columns), grey.shape, strict=True):
        margin = (end - begin) / 4
        first = int((begin + margin) * size)
        middle.append(slice(first, max(first + 1, round((end - margin) * size))))
    return float(grey[middle[0], middle[1]].mean())
