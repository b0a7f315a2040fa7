"""Strips of time as drawings in the page: truth above prediction, a colour for each label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.drawing import label_colours
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


def drawings(
    strips: Sequence[Strip], classes: Sequence[str]
) -> tuple[list[Drawing], list[tuple[str, str]]]:
    """(the strips as drawings, (label, CSS colour) of every label in them). classes: of the head."""
    colours = {label: _css(colour) for label, colour in label_colours(classes).items()}
    there = {span[2] for strip in strips for span in (*strip.truth, *strip.prediction)}
    legend = [(label, colour) for label, colour in colours.items() if label in there]
    return [_drawing(strip, colours) for strip in strips], legend


def _css(colour: Sequence[float]) -> str:
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in colour)


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
