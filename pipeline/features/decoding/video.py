"""An open clip: FFmpeg's account of it, its frames in order with their times, and their pictures."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import av
import av.error

from pipeline.errors import UnreadableClip
from pipeline.features.decoding import pictures
from pipeline.features.decoding.clock import Clock
from pipeline.features.decoding.opening import DAMAGED, left_by_edits, open_video
from pipeline.features.decoding.values import MAX_PIXELS, DecoderFacts, FramePlan
from pipeline.features.sampling import ASSUMED_FPS

MOST_FRAMES = 10**9
"""A header that claims more frames than this is not believed."""

_MOST_WAITING = 64
"""A decoder holds fewer frames than this back."""
_SAME_S = 1e-7

_WRAPPING = {"mpegts", "mpeg"}
_WRAP_TICKS = 1 << 33  # the bits of an MPEG clock

_DECODE_TIMES_ONLY = "avi"  # its presentation times are guesses that go astray with B-frames


@dataclass(slots=True)
class Frame:
    """A decoded frame: its index in the clip, and seconds from the clip's first frame.

    `raw` is FFmpeg's frame, given back to the decoder when the next one is asked for: a buffer that
    is free is used again while it is in the cache, which is worth 2 % of decoding. A copy of this
    value keeps it. None where it was not decoded.
    """

    index: int
    time_s: float
    raw: Any


class Video:
    """One pass over a clip, from its first frame; a context manager.

    A packet that does not decode costs its own frame alone. width, height: of the upright picture
    as stored (the stream's until the first frame is read). pixel_aspect: how many times wider than
    high a pixel of the upright picture is. fps: the average rate that the container states, 0.0
    where it states none. frame_s: how long a frame lasts where no time says. declared: the frames
    that the container claims to hold, 0 without a claim. tick_s: the unit of its times. is_shared:
    whether several plans look at its frames: then each is converted, and fitted in one way, once.
    """

    def __init__(self, path: str, max_pixels: int = MAX_PIXELS) -> None:
        self.container, self.stream = open_video(path)
        context = self.stream.codec_context
        self._max_pixels = max_pixels
        try:
            pictures.check_size(context.width, context.height, max_pixels)
        except UnreadableClip:
            self.container.close()
            raise
        self.width, self.height, self.pixel_aspect = context.width, context.height, 1.0
        guessed = _sane(self.stream.guessed_rate)
        self.fps = _sane(self.stream.average_rate) or guessed
        self.frame_s = 1 / (guessed or self.fps or ASSUMED_FPS)
        self.tick_s = float(self.stream.time_base or 0)
        frames = self.stream.frames
        self.declared = frames if 0 < frames <= MOST_FRAMES else 0
        name = self.container.format.name
        self._wrap = _WRAP_TICKS if name in _WRAPPING else 0
        self.clock = Clock(self.frame_s, self._wrap * self.tick_s)
        self._by_dts = name == _DECODE_TIMES_ONLY
        self.is_shared = False
        self._held = pictures.LastFrames()
        self._converter = pictures.Converter()
        self._matrix: pictures.Matrix | None = None
        self._first_s = 0.0
        self._lasts = 0
        self._read: deque[float | None] = deque(maxlen=_MOST_WAITING)  # the last packets' stamps

    @property
    def duration_s(self) -> float:
        """Seconds that the container states, 0.0 where it states none."""
        if self.stream.duration:
            return max(0.0, float(self.stream.duration) * self.tick_s)
        return max(0.0, self._container_s)

    @property
    def _container_s(self) -> float:
        return float((self.container.duration or 0) / av.time_base)

    def expected(self) -> int:
        """How many frames to expect: the declared ones, less those that an edit list cuts away; else
        what the duration and the rate make. A hint, 0 where there is none."""
        if self.declared:
            return left_by_edits(self.container, self.stream, self.declared, self.frame_s)
        count = round(self._container_s * self.fps)
        return count if 0 < count <= MOST_FRAMES else 0

    def falls_short(self, frames: int) -> bool:
        """Whether a clip that was read to its end gave less than its container declares.

        That is fewer frames than it counts; or, in Matroska, which does not count, a last frame
        that ends more than half a second and a twentieth before the declared duration of a file
        with nothing but this video.
        """
        if self.declared:
            return frames < self.expected()
        alone = len(self.container.streams) == 1 and "matroska" in self.container.format.name
        # A wrong stamp is in the declared duration as well.
        if not alone or self.clock.last is None or self.clock.mended:
            return False
        end = max(0.0, self._first_s) + self.end_s
        return self._container_s - end > max(0.5, self._container_s / 20)

    @property
    def end_s(self) -> float:
        """When the last frame that was read is no longer shown."""
        lasts_s = self._lasts * self.tick_s
        return (self.clock.last or 0.0) + (lasts_s if lasts_s > 0 else self.frame_s)

    def __iter__(self) -> Iterator[Frame]:
        """The frames that decode, in order of presentation."""
        return self.frames_of(self.decoded(self.packets()))

    def frames_of(self, decoded: Iterator[Any]) -> Iterator[Frame]:
        """FFmpeg's frames in order of presentation, numbered and timed.

        A packet among them stands for the frame that it holds and that was not decoded.
        """
        index = 0
        ahead: list[Any] = []
        while (raw := ahead.pop() if ahead else next(decoded, None)) is not None:
            stamp_s, following_s = self.stamp_s(raw), None
            if self.clock.doubts(stamp_s):
                ahead = list(itertools.islice(decoded, 1))
                following_s = self.stamp_s(ahead[0]) if ahead else None
            is_decoded = isinstance(raw, av.VideoFrame)
            if is_decoded:
                self.note_matrix(raw)
            if index == 0:
                self.turn_size(raw)
                self._first_s = stamp_s or 0.0
            self._lasts = raw.duration
            time_s = self.clock.tick(stamp_s, following_s)
            frame = Frame(index, time_s, raw if is_decoded else None)
            index += 1
            del raw
            yield frame
            frame.raw = None

    def rest(self) -> list[float]:
        """When the frames that were not read are shown, about, by their packets: nothing is decoded.

        The video cannot be read on afterwards.
        """
        stamps = list(self._read)
        with contextlib.suppress(av.error.FFmpegError):
            stamps += [self.stamp_s(p) for p in self.container.demux(self.stream) if shows(p)]
        last = self.clock.last or 0.0
        known = {self.clock.at(stamp) for stamp in stamps if stamp is not None}
        # Without stamps one frame follows the other; of those that were read the decoder holds some.
        without = range(1, max(0, stamps.count(None) - len(self._read)) + 1)
        rest = [time_s for time_s in known if time_s > last + _SAME_S]
        return sorted(rest + [last + i * self.frame_s for i in without])

    def picture(self, frame: Frame, *, square_aspect: float = 0.0) -> pictures.Picture:
        """(height, width, 3) uint8 RGB, upright, as stored (its pixels may not be square).

        square_aspect: where not 0, only the centre square of pixels with this aspect is wanted:
        margins beyond it may be left off, as much on one side as on the other.
        Raises `UnreadableClip` `too_large` where a clip's pictures grow beyond the limit.
        """
        raw = frame.raw
        pictures.check_size(raw.width, raw.height, self._max_pixels)
        margins = (0, 0)
        if square_aspect:
            aspect = 1 / square_aspect if pictures.swaps_sides(self._matrix) else square_aspect
            margins = pictures.spare(raw.width, raw.height, aspect)
        return pictures.turn_upright(self._converter.convert(raw, margins), self._matrix)

    def fitted(
        self, frame: Frame, plan: FramePlan, out: pictures.Picture | None = None
    ) -> pictures.Picture:
        """A frame's picture fitted as the plan asks; see `fit_picture`."""
        aspect = self.pixel_aspect if plan.aspect == "display" else 1.0
        square = aspect if plan.fit == "crop" else 0.0
        if not self.is_shared:
            picture = self.picture(frame, square_aspect=square)
            return pictures.fit_picture(picture, plan, aspect, out)
        held = self._held.of(frame.index)
        if square not in held:
            held[square] = self.picture(frame, square_aspect=square)
        fitted = held.get(plan.fitting)
        # Of the fit "whole", the room has the shape of the clip's first picture.
        if fitted is None or (out is not None and out.shape != fitted.shape):
            fitted = pictures.fit_picture(held[square], plan, aspect, out)
            return held.setdefault(plan.fitting, fitted)
        if out is None:
            return fitted.copy()
        out[:] = fitted
        return out

    def note_matrix(self, raw: Any) -> None:
        """Take the display matrix of a decoded frame, if it has one; it holds until the next.

        A container gives it to every frame, but a stream that has its own to keyframes alone.
        """
        self._matrix = pictures.display_matrix(raw) or self._matrix

    def turn_size(self, raw: Any) -> None:
        """Take width, height and pixel aspect from a decoded frame, as it is upright."""
        aspect = _sane(self.stream.sample_aspect_ratio) or 1.0
        self.width, self.height, self.pixel_aspect = raw.width, raw.height, aspect
        if pictures.swaps_sides(self._matrix):
            self.width, self.height, self.pixel_aspect = raw.height, raw.width, 1 / aspect

    def facts(self, *, declared: int, decoded: int, cut_off_s: float) -> DecoderFacts:
        """Every decoder column of a clip, or of a part, that was read; the file is still open."""
        return DecoderFacts(
            fps=self.fps,
            width=self.width,
            height=self.height,
            pixel_aspect=self.pixel_aspect,
            frames_declared=declared,
            frames_decoded=decoded,
            decoder="pyav",
            cut_off_s=cut_off_s,
        )

    def close(self) -> None:
        self.container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def packets(self) -> Iterator[Any]:
        """The packets in the order of decoding, up to the end or to where the file is damaged."""
        packets = self.container.demux(self.stream)
        while True:
            try:
                packet = next(packets, None)
            except MemoryError:
                raise
            except DAMAGED:
                return  # what came before is good
            if packet is None:
                return
            if shows(packet):
                self._read.append(self.stamp_s(packet))
            yield packet

    def decoded(self, packets: Iterable[Any]) -> Iterator[Any]:
        """FFmpeg's frames of the packets from the clip's first on, in order of presentation."""
        for packet in itertools.chain(packets, [None]):
            try:
                frames = self.stream.decode(packet)
            except MemoryError:
                raise
            except av.error.FFmpegError:
                frames = []
            while frames:
                yield frames.pop(0)

    def stamp_s(self, raw: Any) -> float | None:
        """The time stamp of a decoded frame, or of a packet, in seconds; None without one."""
        return self._seconds(raw.dts if self._by_dts else raw.pts)

    def decode_s(self, packet: Any) -> float | None:
        """The decoding time stamp of a packet in seconds; None without one."""
        return self._seconds(packet.dts)

    def _seconds(self, stamp: int | None) -> float | None:
        if stamp is None:
            return None
        # As the file has it: FFmpeg takes an earlier recording that was joined on for a wrap, too.
        return (stamp % self._wrap if self._wrap else stamp) * self.tick_s


def shows(packet: Any) -> bool:
    """Whether a packet holds a frame that is shown."""
    return packet.size > 0 and not packet.is_discard


def _sane(value: Any) -> float:
    """A rate or a ratio as a float, 0.0 where it is no positive number."""
    number = float(value or 0)
    return number if math.isfinite(number) and number > 0 else 0.0
