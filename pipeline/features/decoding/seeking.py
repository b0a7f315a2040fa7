"""Exact seeking in long clips: decode only from the keyframe before each wanted frame.

Packet times can be listed without decoding. In presentation order they are the frames' times, so
frame i of the clip is the one whose time is the i-th; seeking to the keyframe before it and
decoding on until that very time appears gives the same picture as reading through.

That holds only for containers with an index and codecs with one shown frame per packet, with
8-bit pixels, times that are all there, distinct and sane, packets that are whole, keyframes that
need nothing before them, and no error met on the way. Anything else makes `read_by_seeking` return
None, and the clip is read through.

A wrong time stamp must not shift the count of frames. Two facts do not depend on the stamps: as many
frames are shown before a keyframe as were decoded before it, with its leading pictures; and the
decoder gives the frames from there on in the order in which they are shown. Both are compared with
the stamps, the first for every keyframe, the second for every frame that is decoded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import av.error
import numpy as np
from numpy.typing import NDArray

from pipeline.features.decoding.through import Kept, OnProgress
from pipeline.features.decoding.video import Frame, Video
from pipeline.features.sampling import needs_length, rule_of, sample_indices
from pipeline.features.windows import Windows
from pipeline.spec import Sampling

# Codec → the types of NAL units that hold a picture, and those of them at which decoding can start.
_NAL_TYPES = {
    "h264": (set(range(1, 6)), {5}),  # IDR
    "hevc": (set(range(32)), set(range(16, 24))),  # IRAP
}
_HEVC_LEADING = {6, 7, 8, 9}  # RADL and RASL


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
        return self._kinds(packet) is not None

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


LONG_FRAMES = 600
"""Clips of fewer frames are read through: listing their packets costs more than it saves."""

LARGEST_SHARE = 0.5
"""Seek only where at most this share of the frames has to be decoded."""

MOST_REORDERED = 16
"""Places between a packet's turn to be decoded and to be shown that codecs allow. A packet that is
further off has a wrong time stamp."""

_CONTAINERS = {"mov", "mp4", "matroska", "webm"}
_CODECS = {"h264", "hevc", "vp9", "libdav1d", "av1"}
_EIGHT_BIT = {"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "gray"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PacketTimes:
    """A clip's packets: times in presentation order, and where decoding can begin.

    times: (n,) int64, ascending, in the stream's time base. keys: the times of keyframes.
    """

    times: NDArray[np.int64]
    keys: NDArray[np.int64]


def read_by_seeking(video: Video, each: Sequence[Kept]) -> list[Windows] | None:
    """Keep the frames of a long clip that each plan wants; as `through.read_through`.

    None where seeking is not exact or not faster; the video cannot be read again then.
    """
    samplings = [kept.plan.sampling for kept in each]
    if all(_near_the_start(sampling, video) for sampling in samplings):
        return None
    packets = _list_packets(video, each[0].on_progress)
    if packets is None:
        return None
    base = float(video.stream.time_base)
    for kept in each:
        kept.times, kept.ended = ((packets.times - packets.times[0]) * base).tolist(), True
    wanted = [kept.wanted(video) for kept in each]
    indices = np.unique(np.concatenate([windows.frames for windows in wanted]))
    # Up to the last one, where reading through could stop there.
    whole = any(map(needs_length, samplings))
    reading = len(packets.times) if whole else int(indices[-1]) + 1
    if _frames_to_decode(packets, indices) > LARGEST_SHARE * reading:
        return None
    try:
        _fetch(video, packets, indices, list(zip(each, wanted, strict=True)))
    except (av.error.FFmpegError, _NotExact):
        return None
    return wanted


class _NotExact(Exception):
    """A frame did not come where the packet times say it must."""


def _near_the_start(sampling: Sampling, video: Video) -> bool:
    """Whether reading through would soon come to the last wanted frame."""
    if needs_length(sampling):
        return False
    if (moments_of := rule_of(sampling).moments) is not None:
        moments = moments_of(sampling, math.inf, video.tick_s)
        last_s = moments.start_s + (sampling.steps - 1) * moments.gap_s
        return last_s < LONG_FRAMES * video.frame_s
    return bool(sample_indices(sampling, video.expected())[-1] < LONG_FRAMES)


def _list_packets(video: Video, on_progress: OnProgress) -> PacketTimes | None:
    context = video.stream.codec_context
    if not _CONTAINERS & set(video.container.format.name.split(",")):
        return None
    if context.name not in _CODECS or context.pix_fmt not in _EIGHT_BIT:
        return None
    parser = Packets.of(context)
    shown: list[int] = []
    keys: list[int] = []
    before: list[int] = []  # how many frames are shown before each of the keys
    decode_times: list[int] = []
    try:
        for packet in video.container.demux(video.stream):
            if packet.size == 0 and packet.pts is None:  # the flush packet at the end
                continue
            on_progress()
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
    except av.error.FFmpegError:
        return None
    order = np.argsort(shown, kind="stable")
    times = np.array(shown, dtype=np.int64)[order]
    # The first packet is shown first, or frames before it would depend on missing ones.
    sane = len(times) > 0 and times[0] == shown[0] and bool(np.all(np.diff(times) > 0))
    moved = np.abs(order - np.arange(len(order))).max(initial=0)
    most = MOST_REORDERED if context.has_b_frames else 0
    if not sane or moved > most or any(b < a for a, b in pairwise(decode_times)):
        return None
    if np.searchsorted(times, keys).tolist() != before:
        return None
    return PacketTimes(times=times, keys=np.array(keys, dtype=np.int64))


def _key_before(packets: PacketTimes, time: int) -> int:
    return int(packets.keys[np.searchsorted(packets.keys, time, side="right") - 1])


def _frames_to_decode(packets: PacketTimes, indices: NDArray[np.int64]) -> int:
    """How many frames seeking decodes for these, ascending."""
    total, reached = 0, -1
    for index in indices.tolist():
        key = _key_before(packets, int(packets.times[index]))
        begin = int(np.searchsorted(packets.times, key))
        total += index - max(begin, reached + 1) + 1
        reached = index
    return total


def _fetch(
    video: Video,
    packets: PacketTimes,
    indices: NDArray[np.int64],
    each: Sequence[tuple[Kept, Windows]],
) -> None:
    keepers = [(kept, set(windows.frames.tolist())) for kept, windows in each]
    on_progress = each[0][0].on_progress
    context = video.stream.codec_context
    frames: Iterator[Any] = iter(())
    reached: int | None = None  # the time of the last frame that came
    for index in indices.tolist():
        target = int(packets.times[index])
        key = _key_before(packets, target)
        if reached is None or key > reached:
            video.container.seek(key, stream=video.stream, backward=True, any_frame=False)
            frames = _frames_from(video, packets, key)
        for raw in frames:
            on_progress()
            if raw.pts == target:
                break
        else:
            raise _NotExact
        reached = target
        if raw.is_corrupt or (raw.width, raw.height) != (context.width, context.height):
            raise _NotExact
        video.turn_size(raw)
        for kept, its in keepers:
            if index in its:
                kept.keep(video, Frame(index, kept.times[index], raw))


def _frames_from(video: Video, packets: PacketTimes, key: int) -> Iterator[Any]:
    """The frame of `key` and all that follow it, in order of presentation.

    Raises `_NotExact` at the first frame that is not the one whose turn it is by the packet times.
    """
    due = iter(packets.times[np.searchsorted(packets.times, key) :].tolist())
    begun = False
    for raw in _decoded_from(video, key):
        if not begun and raw.pts is not None and raw.pts < key:
            yield raw  # a leading picture
            continue
        begun = True
        if raw.pts != next(due, None):
            raise _NotExact
        yield raw


def _decoded_from(video: Video, key: int) -> Iterator[Any]:
    """What the decoder gives from the packet of `key` on."""
    first = True
    for packet in video.container.demux(video.stream):
        # A seek may land on a point before the key that does not decode cleanly.
        if first and packet.pts != key:
            if packet.pts is None or packet.pts > key:
                raise _NotExact
            continue
        first = False
        for raw in video.stream.decode(packet):
            video.note_matrix(raw)
            yield raw
