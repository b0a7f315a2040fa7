"""What an export says of a clip or of itself. Others can write that, too: what does not fit is untold."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST_STEPS = 1 << 20
_INT32 = (1 << 31) - 1
_SECONDS = 1e9  # thirty years
_MOST_FPS = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A line of a manifest; a field's default stands for what it does not tell.

    digest: CRC-32C of the array's bytes · frames (n,) int32 · times (n,) float32 seconds.
    """

    digest: int | None = None
    frames: NDArray[np.int32] | None = None
    times: NDArray[np.float32] | None = None
    fps: float = math.nan
    frames_declared: int = -1


def told_of(values: Mapping[str, Any]) -> Told:
    """What of a line's values is of the right type and range.

    >>> told_of({"fps": 25, "frames": [0, 2], "frames_declared": 2**40, "digest": "12"}).fps
    25.0
    """
    names = ("frames", "times", "fps", "digest", "frames_declared")
    told: list[Any] = [values.get(name) for name in names]
    frames, times, fps, digest, declared = told
    whole = type(frames) is list and all(_is_whole(v, 0, _INT32) for v in frames)
    timed = type(times) is list and all(_is_number(v, _SECONDS) for v in times)
    return Told(
        digest=digest if _is_whole(digest, 0, (1 << 32) - 1) else None,
        frames=np.array(frames, np.int32) if whole else None,
        times=np.array(times, np.float32) if timed else None,
        fps=float(fps) if _is_number(fps, _MOST_FPS) and fps > 0 else math.nan,
        frames_declared=declared if _is_whole(declared, -1, _INT32) else -1,
    )


def about_of(values: Any) -> dict[str, Any]:
    """Of what an export says of itself, what an import uses: `steps`, `transpose`, `source`."""
    if type(values) is not dict:
        return {}
    fits: dict[str, Callable[[Any], bool]] = {
        "steps": lambda v: _is_whole(v, 1, _MOST_STEPS),
        "transpose": lambda v: type(v) is bool,
        "source": lambda v: type(v) is str,
    }
    return {name: values[name] for name, fit in fits.items() if fit(values.get(name))}


def _is_whole(value: Any, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def _is_number(value: Any, most: float) -> bool:
    return type(value) in (int, float) and abs(value) <= most
