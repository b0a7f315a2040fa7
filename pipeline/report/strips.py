"""Strips of time as drawings in the page: truth above prediction, a colour for each label."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.report.contents import Strip

WIDTH = 1000
_ROWS = (("true", 0), ("predicted", 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One segment: its place along `WIDTH`, its row (0: truth), and what the pointer shows."""

    x: float
    width: float
    row: int
    colour: str
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A strip as bars, with a sentence for who cannot see it."""

    video_id: str
    duration: str
    bars: Sequence[Bar]
    words: str


def drawings(strips: Sequence[Strip]) -> tuple[list[Drawing], list[tuple[str, str]]]:
    """(the strips as drawings, (label, colour) of every label in them)."""
    labels = sorted({span[2] for strip in strips for span in (*strip.truth, *strip.prediction)})
    colours = {label: colour(number, len(labels)) for number, label in enumerate(labels)}
    return [_drawing(strip, colours) for strip in strips], list(colours.items())


def colour(number: int, of: int) -> str:
    """A CSS colour: hues around the circle, lighter and darker by turns."""
    channels = colorsys.hsv_to_rgb(
        (0.58 + number / max(of, 1)) % 1, 0.55, 0.9 if number % 2 else 0.7
    )
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in channels)


def _drawing(strip: Strip, colours: dict[str, str]) -> Drawing:
    scale = WIDTH / max(strip.duration_s, 1e-9)
    bars = [
        Bar(
            x=round(start * scale, 2),
            width=round(max((end - start) * scale, 0.5), 2),
            row=row,
            colour=colours[label],
            words=f"{name}: {label}, {clock(start)} to {clock(end)}",
        )
        for (name, row), spans in zip(_ROWS, (strip.truth, strip.prediction), strict=True)
        for start, end, label in spans
    ]
    return Drawing(
        video_id=strip.video_id,
        duration=clock(strip.duration_s),
        bars=bars,
        words=(
            f"{strip.video_id}: {len(strip.truth)} segments in truth and {len(strip.prediction)} "
            f"predicted, over {clock(strip.duration_s)}."
        ),
    )


def clock(seconds: float) -> str:
    """Minutes and seconds.

    >>> clock(83.46)
    '1:23.5'
    """
    tenths = round(seconds * 10)
    return f"{tenths // 600}:{tenths % 600 / 10:04.1f}"
