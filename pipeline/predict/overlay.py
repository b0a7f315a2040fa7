"""A video with a head's predictions drawn below the picture, and the same as a small animation.

The picture is never covered: a band below it names the likeliest labels, and a strip shows the
video's segments of one label with the present moment on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pipeline.drawing import label_colours
from pipeline.features.decoding.video import Video
from pipeline.predict.timeline import Segment, Timeline

Picture = NDArray[np.uint8]

_TICKS = 90_000  # a second, as MPEG counts
_WIDEST = 960
_GIF_WIDTH, _GIF_FRAMES, _GIF_FRAME_MS = 320, 150, 120
_INK, _PAPER, _QUIET = (240, 240, 240), (24, 26, 30), (120, 125, 135)


@dataclass(kw_only=True)
class Painter:
    """Draws the band below a picture of this width in pixels."""

    timeline: Timeline
    parts: Sequence[Segment]
    width: int
    top: int = 3

    @property
    def height(self) -> int:
        """Of the band, in pixels; even, as H.264 wants it."""
        lines = min(self.top, len(self.timeline.classes))
        return (self._line * lines + self._line * 5 // 4) // 2 * 2

    def below(self, picture: Picture, time_s: float) -> Picture:
        """The RGB picture (height, width, 3) with its band below."""
        return np.concatenate([picture, self.band(time_s)])

    def band(self, time_s: float) -> Picture:
        """(height, width, 3): bars of the likeliest labels, the strip, and where we are."""
        image = Image.new("RGB", (self.width, self.height), _PAPER)
        draw = ImageDraw.Draw(image)
        font = ImageFont.load_default(size=self._line * 0.62)
        probabilities = self.timeline.at(time_s)
        edge = self._line // 3
        for row, index in enumerate(np.argsort(-probabilities, kind="stable")[: self.top]):
            y = row * self._line + self._line * 0.12
            bar = (self.width - 2 * edge) * float(probabilities[index])
            box = (edge, y, edge + max(bar, 1), y + self._line * 0.8)
            draw.rectangle(box, fill=self._colour(self.timeline.classes[index], 0.75))
            text = f"{self.timeline.classes[index]}  {probabilities[index]:.0%}"
            ink = _INK if row == 0 else (200, 200, 205)
            draw.text((edge * 2, y + self._line * 0.02), text, fill=ink, font=font)
        strip = self._strip
        image.paste(Image.fromarray(strip), (0, self.height - len(strip)))
        x = time_s / max(self.timeline.duration_s, 1e-9) * self.width
        draw.line((x, self.height - len(strip) - 2, x, self.height), fill=_INK, width=2)
        return np.asarray(image)

    @property
    def _line(self) -> int:
        return max(14, self.width // 24)

    @cached_property
    def _strip(self) -> Picture:
        """The video's segments in their labels' colours."""
        strip = np.full((self._line * 3 // 4, self.width, 3), _QUIET, np.uint8)
        scale = self.width / max(self.timeline.duration_s, 1e-9)
        for part in self.parts:
            left, right = round(part.start_s * scale), round(part.end_s * scale)
            strip[:, left:right] = self._colour(part.label)
        return strip

    @cached_property
    def _colours(self) -> dict[str, tuple[float, float, float]]:
        return label_colours(self.timeline.classes)

    def _colour(self, label: str, value: float = 1.0) -> tuple[int, int, int]:
        """A label's colour, darker where `value` is below 1; of `background` that of the bare strip."""
        if label not in self._colours:
            red, green, blue = (round(value * channel) for channel in _QUIET)
        else:
            red, green, blue = (round(255 * value * channel) for channel in self._colours[label])
        return red, green, blue


def write_overlay(path: str, out: Path, timeline: Timeline, parts: Sequence[Segment]) -> None:
    """Write the video as H.264 in MP4, at its own pace and without sound, with the band below."""
    with av.open(str(out), "w", options={"movflags": "+faststart"}) as container:
        stream: Any = None
        painter: Painter | None = None
        for time_s, picture in _pictures(path, _WIDEST):
            if painter is None:
                painter = Painter(timeline=timeline, parts=parts, width=picture.shape[1])
                stream = container.add_stream("libx264", rate=_rate(timeline))
                stream.width, stream.height = picture.shape[1], picture.shape[0] + painter.height
                stream.pix_fmt = "yuv420p"
                stream.options = {"crf": "24", "preset": "veryfast"}
                # Times are the source's own, also where its rate varies.
                stream.codec_context.time_base = Fraction(1, _TICKS)
            frame = av.VideoFrame.from_ndarray(painter.below(picture, time_s), format="rgb24")
            frame.pts, frame.time_base = round(time_s * _TICKS), Fraction(1, _TICKS)
            container.mux(stream.encode(frame))
        if stream is not None:
            container.mux(stream.encode(None))


def write_gif(path: str, out: Path, timeline: Timeline, parts: Sequence[Segment]) -> None:
    """Write at most 150 pictures from the whole video, with the band below, as an endless GIF."""
    every = max(timeline.duration_s / _GIF_FRAMES, _GIF_FRAME_MS / 1000)
    frames: list[Image.Image] = []
    painter: Painter | None = None
    for time_s, picture in _pictures(path, _GIF_WIDTH):
        if time_s >= len(frames) * every:
            painter = painter or Painter(timeline=timeline, parts=parts, width=picture.shape[1])
            drawn = Image.fromarray(painter.below(picture, time_s))
            frames.append(drawn.quantize(96, dither=Image.Dither.NONE))
    if frames:
        frames[0].save(out, save_all=True, append_images=frames[1:], duration=_GIF_FRAME_MS, loop=0)


def _pictures(path: str, widest: int) -> Iterator[tuple[float, Picture]]:
    """Every frame as (seconds from the first, RGB picture with even sides, `widest` at most)."""
    with Video(path) as video:
        last = -1
        for frame in video:
            tick = round(frame.time_s * _TICKS)
            # A frame whose time does not advance cannot be shown.
            if tick <= last:
                continue
            last = tick
            picture = video.picture(frame)
            height, width = picture.shape[0], picture.shape[1] * video.pixel_aspect
            scale = min(1.0, widest / width)
            even = max(2, round(width * scale) // 2 * 2), max(2, round(height * scale) // 2 * 2)
            if even != picture.shape[1::-1]:
                picture = cv2.resize(picture, even, interpolation=cv2.INTER_AREA).astype(np.uint8)
            yield frame.time_s, picture


def _rate(timeline: Timeline) -> Fraction:
    rate = timeline.decoded / max(timeline.duration_s, 1e-3)
    return Fraction(min(max(rate, 1.0), 240.0)).limit_denominator(1001)
