"""Where a clip's frames differ from the reference: which, how many, upright, colours, when, size."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.features.decoding import ClipFrames
from pipeline.predict.timeline import Timeline
from tests.frames.painting import Picture, number_in, turned_ways
from tests.frames.paths import FITS, RULES, SIZE
from tests.frames.recipes import Recipe
from tests.frames.reference import Reference

LEVELS = 3.0
"""The mean difference of colour that is allowed, of 255."""

SECONDS = 0.02
"""The difference in time that is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What is right for a clip: the reference, and the recipe where that knows better.

    times: (n,) float64 seconds from the first frame. numbers: what each frame carries, or None.
    """

    reference: Reference
    times: NDArray[np.float64]
    numbers: tuple[int, ...] | None = None

    @classmethod
    def of(cls, reference: Reference, recipe: Recipe | None = None) -> Truth:
        """Without a recipe, the reference alone."""
        times = reference.times.copy()
        rate = reference.rate or 25.0
        if np.isnan(times[0]) or (recipe is not None and recipe.even_times):
            times = np.arange(len(reference)) / rate
        for i in np.flatnonzero(np.isnan(times)):  # a frame without a time follows the one before
            times[i] = times[i - 1] + 1 / rate
        times = np.maximum.accumulate(times)  # a time that steps back is no truth
        return cls(reference=reference, times=times, numbers=recipe.numbers if recipe else None)

    def wanted(self, rule: str) -> list[int]:
        """The frames that a rule takes, by the words of the documentation and not by our code."""
        n, sampling = len(self.reference), RULES[rule]
        steps = range(sampling.steps)
        if rule == "uniform":
            return (
                [int((k + 0.5) * n / len(steps)) for k in steps] if n > len(steps) else [*range(n)]
            )
        if rule == "fps":
            return self._at_moments(sampling.fps)[: len(steps)]
        if rule not in ("stride", "first"):
            raise NotImplementedError(f"the reference has no words for the rule {rule}")
        stride = sampling.stride if rule == "stride" else 1
        places = [int(0.5 * min(stride, n) + k * stride) for k in steps]
        return [place for place in places if place < n]

    def _at_moments(self, fps: float) -> list[int]:
        """The frames shown at the middles of intervals of 1 / fps seconds, each once."""
        end = self.times[-1] + 1 / (self.reference.rate or 25.0)
        first = 0.5 * min(1 / fps, end)
        # A container's times are off by up to half of what it counts in.
        tick = self.reference.tick_s
        moments = np.arange(first, end, 1 / fps) + 1e-6 + (tick / 2 if tick <= 2e-3 else 0.0)
        shown = np.searchsorted(self.times, moments, side="right") - 1
        return np.unique(shown).tolist()


@dataclass(slots=True)
class Comparison:
    """How far frames are apart from the truth.

    differences: by kind (which, count, upright, colours, when, size), the worst in words. levels:
    the largest mean difference of colour. seconds: the largest difference in time.
    """

    differences: dict[str, str] = field(default_factory=dict)
    levels: float = 0.0
    seconds: float = 0.0


def compare_clip(clip: ClipFrames, truth: Truth, rule: str) -> Comparison:
    """What the reader gave, against what is right."""
    found = Comparison()
    wanted, index = truth.wanted(rule), clip.frame_index.tolist()
    total = len(truth.reference)
    if index != wanted:
        found.differences["which"] = f"{index}, not {wanted}"
    if rule == "uniform" and clip.frames_decoded != total:
        found.differences["count"] = f"{clip.frames_decoded}, not {total}"
    height, width = truth.reference.pictures.shape[1:3]
    if (clip.width, clip.height) != (width, height):
        found.differences["size"] = f"{clip.width}×{clip.height}, not {width}×{height}"
    index = [i for i in index if i < total]
    _compare_pictures(found, list(clip.frames), index, truth, FITS[rule])
    _compare_times(found, clip.timestamp.tolist(), index, truth.times)
    return found


def compare_timeline(pictures: list[Picture], timeline: Timeline, truth: Truth) -> Comparison:
    """The frames of a timeline with a window to each frame, against all that there are."""
    found = Comparison()
    total = len(truth.reference)
    if (len(pictures), timeline.decoded) != (total, total):
        text = f"{len(pictures)} taken of {timeline.decoded}, not {total}"
        found.differences["count"] = text
    index = list(range(min(len(pictures), total)))
    _compare_pictures(found, pictures, index, truth, "pad")
    # A window's time is its middle: from its frame's time until the next one's.
    middles = (truth.times[:-1] + truth.times[1:]) / 2
    _compare_times(found, timeline.times.tolist(), index[: len(middles)], middles)
    return found


def _compare_pictures(
    found: Comparison, pictures: list[Picture], index: list[int], truth: Truth, fit: str
) -> None:
    for i, picture in zip(index, pictures, strict=False):
        right = fitted(truth.reference, i, fit).astype(np.int16)
        levels = float(np.abs(right - picture).mean())
        if levels > max(found.levels, LEVELS):
            found.differences["colours"] = f"{levels:.1f} levels at frame {i}"
        found.levels = max(found.levels, levels)
        if fit == "crop" or truth.numbers is None:
            continue
        content = picture[inside(truth.reference, fit)]
        number = number_in(content)
        if number is None:
            ways = " or ".join(turned_ways(content)) or "in no way"
            found.differences.setdefault("upright", f"frame {i} is upright {ways}")
        elif number != truth.numbers[i]:
            text = f"frame {i} shows {number}, not {truth.numbers[i]}"
            found.differences.setdefault("which", text)


def _compare_times(
    found: Comparison, times: list[float], index: list[int], right: NDArray[np.float64]
) -> None:
    for i, time in zip(index, times, strict=False):
        apart = abs(time - right[i])
        if not apart <= max(found.seconds, SECONDS + 1e-6):
            found.differences["when"] = f"{time:.3f} s at frame {i}, not {right[i]:.3f} s"
        found.seconds = max(found.seconds, apart)


def fitted(reference: Reference, index: int, fit: str, size: int = SIZE) -> Picture:
    """The reference's frame, in its display shape and fitted, by code of its own."""
    picture = reference.pictures[index]
    if fit != "crop":
        canvas = np.zeros((size, size, 3), np.uint8)
        rows, columns = inside(reference, fit, size)
        width, height = columns.stop - columns.start, rows.stop - rows.start
        canvas[rows, columns] = _resized(picture, width, height)
        return canvas
    high, wide = picture.shape[:2]
    aspect = float(reference.sample_aspect)
    side = min(high, wide * aspect)  # of the largest square that is shown, in rows
    rows, columns = round(side), round(side / aspect)
    top, left = (high - rows) // 2, (wide - columns) // 2
    return _resized(picture[top : top + rows, left : left + columns], size, size)


def inside(reference: Reference, fit: str, size: int = SIZE) -> tuple[slice, slice]:
    """Where in a squashed or padded picture the whole clip's picture lies: rows and columns."""
    if fit == "squash":
        return slice(0, size), slice(0, size)
    width, height = reference.display_size
    scale = size / max(width, height)
    wide, high = max(1, round(width * scale)), max(1, round(height * scale))
    top, left = (size - high) // 2, (size - wide) // 2
    return slice(top, top + high), slice(left, left + wide)


def _resized(picture: Picture, width: int, height: int) -> Picture:
    if picture.shape[:2] == (height, width):
        return picture
    grows = height > picture.shape[0] or width > picture.shape[1]
    method = cv2.INTER_LINEAR if grows else cv2.INTER_AREA
    return cv2.resize(picture, (width, height), interpolation=method).astype(np.uint8, copy=False)
