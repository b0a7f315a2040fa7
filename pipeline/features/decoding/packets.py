"""The packets of a clip, listed without decoding: when each frame is shown, and where decoding can begin.

What may be sought exactly, and how that is known, is told in `seeking`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.features.decoding.h264 import PictureOrder
from pipeline.features.decoding.opening import DAMAGED
from pipeline.features.decoding.video import Video

MOST_REORDERED = 16
"""Places between a packet's turn to be decoded and to be shown that codecs allow. A packet that is
further off has a wrong time stamp."""

_CONTAINERS = {"mov", "mp4", "matroska", "webm"}
_CODECS = {"h264", "hevc", "vp9", "libdav1d", "av1"}
_EIGHT_BIT = {"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "gray"}

# Codec → the types of NAL units that hold a picture, and those of them at which decoding can start.
_NAL_TYPES = {
    "h264": (set(range(1, 6)), {5}),  # IDR
    "hevc": (set(range(32)), set(range(16, 24))),  # IRAP
}
_HEVC_LEADING = {6, 7, 8, 9}  # RADL and RASL


class NotExact(Exception):
    """A frame did not come where the packets say that it must."""


NOT_EXACT = (*DAMAGED, NotExact)
"""What ends a way of reading that relies on the packets: the clip is to be read through whole."""


@dataclass(frozen=True, slots=True)
class Packets:
    """How the packets of one stream are parsed.

    codec: its decoder's name. prefix: bytes of the length before each NAL unit (H.264 and HEVC in
    MP4 and Matroska), 0 where the units are not length-prefixed.
    """

    codec: str
    prefix: int = 0

    @classmethod
    def of(cls, context: Any) -> Self:
        """For the stream of this codec context."""
        extra = context.extradata or b""
        at = {"h264": 4, "hevc": 21}.get(context.name)
        if at is None or len(extra) <= at or extra[0] != 1:
            return cls(context.name)
        return cls(context.name, (extra[at] & 3) + 1)

    def whole(self, packet: Any) -> bool:
        """Whether the packet is intact: the lengths of its NAL units add up to its size."""
        if self.codec not in _NAL_TYPES:
            return bool(packet.size)
        first = int.from_bytes(memoryview(packet)[: self.prefix], "big")
        # Most packets are one unit; this is asked of every packet of a file.
        return 0 < first == packet.size - self.prefix or self._kinds(packet) is not None

    def clean(self, packet: Any) -> bool:
        """Whether every picture from this one on, in order of presentation, decodes from here."""
        if self.codec in _NAL_TYPES:
            pictures, clean = _NAL_TYPES[self.codec]
            kinds = pictures & set(self._kinds(packet) or [])
            return bool(kinds) and kinds <= clean
        if self.codec != "vp9":
            return True  # AV1's sync points are complete by its container's rules
        head = memoryview(packet)[:1].tobytes()
        if not head:
            return False
        # Bits of the frame header: two of the profile, then whether it shows a frame that exists, and
        # whether it depends on others.
        profile = head[0] >> 5 & 1 | head[0] >> 3 & 2
        shift = 3 if profile < 3 else 2
        return not head[0] >> (shift - 1) & 3

    def leading(self, packet: Any) -> bool:
        """Whether the picture is shown before the keyframe that it is decoded after."""
        return self.codec == "hevc" and not _HEVC_LEADING.isdisjoint(self._kinds(packet) or [])

    def _kinds(self, packet: Any) -> list[int] | None:
        """The types of the packet's NAL units, None where their lengths do not add up."""
        data = memoryview(packet)
        kinds: list[int] = []
        at = 0
        while at < len(data):
            size = int.from_bytes(data[at : at + self.prefix], "big")
            at += self.prefix
            if not size or at + size > len(data):
                return None
            kinds.append(data[at] & 31 if self.codec == "h264" else data[at] >> 1 & 63)
            at += size
        return kinds


@dataclass(frozen=True, slots=True, kw_only=True)
class PacketTimes:
    """A clip's packets: times in presentation order, and where decoding can begin.

    times: (n,) int64, ascending, in the stream's time base. keys: the times of keyframes. disposable:
    (n,), the frames that no other is decoded from; none where the stream does not say, or not what the
    times say.
    """

    times: NDArray[np.int64]
    keys: NDArray[np.int64]
    disposable: NDArray[np.bool_]

    def seconds(self, video: Video) -> NDArray[np.float64]:
        """(n,) seconds of every frame from the first."""
        base = float(video.stream.time_base)
        seconds: NDArray[np.float64] = (self.times - self.times[0]) * base
        return seconds

    def begins(self) -> NDArray[np.int64]:
        """(n,) for every frame the number of the keyframe from which it decodes."""
        keys = np.searchsorted(self.times, self.keys)
        return keys[np.searchsorted(self.keys, self.times, side="right") - 1]


def may_be_sought(video: Video) -> bool:
    """Whether container and codec are of those that can be sought exactly; nothing is read."""
    context = video.stream.codec_context
    known = _CONTAINERS & set(video.container.format.name.split(","))
    return bool(known) and context.name in _CODECS and context.pix_fmt in _EIGHT_BIT


_REMEMBERED = 2
_remembered: dict[tuple[Any, ...], PacketTimes] = {}


def packets_of(path: str, video: Video, on_progress: Callable[[], None]) -> PacketTimes | None:
    """`list_packets` of the file at `path`, which a process that reads its parts asks for every batch.

    Those of the last files are remembered, while size, time and inode say that they are the same.
    """
    told = os.stat(path)
    key = (path, told.st_dev, told.st_ino, told.st_size, told.st_mtime_ns)
    packets = _remembered.pop(key, None) or list_packets(video, on_progress)
    if packets is not None:
        _remembered[key] = packets
        while len(_remembered) > _REMEMBERED:
            del _remembered[next(iter(_remembered))]
    return packets


def list_packets(video: Video, on_progress: Callable[[], None]) -> PacketTimes | None:
    """The packets of an open clip that may be sought exactly; None where that is not certain.

    The video has to be opened again, or sought, before it is read.
    """
    if not may_be_sought(video):
        return None
    context = video.stream.codec_context
    parser = Packets.of(context)
    shown: list[int] = []
    keys: list[int] = []
    before: list[int] = []  # how many frames are shown before each of the keys
    decode_times: list[int] = []
    order = PictureOrder.of(context)
    try:
        for packet in video.container.demux(video.stream):
            if packet.size == 0 and packet.pts is None:  # the flush packet at the end
                continue
            on_progress()
            if order is not None:
                order.meet(packet, shown=not packet.is_discard)
            if packet.is_discard:
                continue
            if packet.pts is None or packet.is_corrupt or not parser.whole(packet):
                return None
            if packet.is_keyframe and parser.clean(packet):
                keys.append(packet.pts)
                before.append(len(shown))
            if not keys:
                return None
            shown.append(packet.pts)
            before[-1] += parser.leading(packet)
            if packet.dts is not None:
                decode_times.append(packet.dts)
    except DAMAGED:
        return None
    stamps = np.array(shown, dtype=np.int64)
    by_time = np.argsort(stamps, kind="stable")
    times = stamps[by_time]
    # The first packet is shown first, or frames before it would depend on missing ones.
    sane = len(times) > 0 and times[0] == shown[0] and bool(np.all(np.diff(times) > 0))
    moved = np.abs(by_time - np.arange(len(times))).max(initial=0)
    most = MOST_REORDERED if context.has_b_frames else 0
    if not sane or moved > most or any(b < a for a, b in pairwise(decode_times)):
        return None
    if np.searchsorted(times, keys).tolist() != before:
        return None
    spare = np.zeros(len(times), bool)
    if order is not None and order.is_that_of(stamps):
        spare = np.array(order.disposable)[by_time]
    return PacketTimes(times=times, keys=np.array(keys, dtype=np.int64), disposable=spare)
