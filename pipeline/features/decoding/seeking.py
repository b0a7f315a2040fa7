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
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import av.error
import numpy as np
from numpy.typing import NDArray

from pipeline.features.decoding.packets import Packets
from pipeline.features.decoding.through import Kept, OnProgress, wanted_of
from pipeline.features.decoding.values import FramePlan
from pipeline.features.decoding.video import Frame, Video
from pipeline.features.sampling import needs_length, rule_of, sample_indices

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


def read_by_seeking(
    video: Video, plan: FramePlan, room: NDArray[np.uint8], on_progress: OnProgress
) -> tuple[Kept, NDArray[np.int64]] | None:
    """The wanted frames of a long clip and their indices; see `through.read_through`.

    None where seeking is not exact or not faster; the video cannot be read again then.
    """
    if _near_the_start(plan, video):
        return None
    packets = _list_packets(video, on_progress)
    if packets is None:
        return None
    base = float(video.stream.time_base)
    kept = Kept(room, times=((packets.times - packets.times[0]) * base).tolist(), ended=True)
    indices = wanted_of(plan, kept.times, video)
    cost = _frames_to_decode(packets, packets.times[indices])
    if cost > LARGEST_SHARE * _frames_of_reading(plan, packets, indices):
        return None
    try:
        _fetch(video, packets, indices, plan, kept, on_progress)
    except (av.error.FFmpegError, _NotExact):
        return None
    return kept, indices


class _NotExact(Exception):
    """A frame did not come where the packet times say it must."""


def _near_the_start(plan: FramePlan, video: Video) -> bool:
    """Whether reading through would soon come to the last wanted frame."""
    if needs_length(plan.sampling):
        return False
    moments_of = rule_of(plan.sampling).moments
    if moments_of is not None:
        moments = moments_of(plan.sampling, math.inf, video.tick_s)
        last_s = moments.start_s + (plan.sampling.steps - 1) * moments.gap_s
        return last_s < LONG_FRAMES * video.frame_s
    return bool(sample_indices(plan.sampling, video.expected())[-1] < LONG_FRAMES)


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


def _frames_to_decode(packets: PacketTimes, targets: NDArray[np.int64]) -> int:
    """How many frames seeking decodes for these targets, ascending."""
    total, reached = 0, -1
    for target in targets.tolist():
        place = int(np.searchsorted(packets.times, target))
        begin = int(np.searchsorted(packets.times, _key_before(packets, target)))
        total += place - max(begin, reached + 1) + 1
        reached = place
    return total


def _frames_of_reading(plan: FramePlan, packets: PacketTimes, indices: NDArray[np.int64]) -> int:
    """How many frames reading through would decode: up to the last one, where it could stop there."""
    return len(packets.times) if needs_length(plan.sampling) else int(indices[-1]) + 1


def _fetch(
    video: Video,
    packets: PacketTimes,
    indices: NDArray[np.int64],
    plan: FramePlan,
    kept: Kept,
    on_progress: OnProgress,
) -> None:
    context = video.stream.codec_context
    frames: Iterator[Any] = iter(())
    reached: int | None = None  # the time of the last frame that came
    for index in indices.tolist():
        target = int(packets.times[index])
        key = _key_before(packets, target)
        if reached is None or key > reached:
            video.container.seek(key, stream=video.stream, backward=True, any_frame=False)
            frames = _frames_from(video, packets, key)
        raw = _advance(frames, target, on_progress)
        reached = target
        if raw.is_corrupt or (raw.width, raw.height) != (context.width, context.height):
            raise _NotExact
        video.turn_size(raw)
        kept.keep(video, Frame(index, kept.times[index], raw), plan)


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


def _advance(frames: Iterator[Any], target: int, on_progress: OnProgress) -> Any:
    for frame in frames:
        on_progress()
        if frame.pts == target:
            return frame
    raise _NotExact
