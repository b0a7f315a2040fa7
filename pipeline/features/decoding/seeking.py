"""Exact seeking in long clips: decode only from the keyframe before each wanted frame.

Packet times can be listed without decoding. In presentation order they are the frames' times, so
frame i of the clip is the one whose time is the i-th; seeking to the keyframe before it and
decoding on until that very time appears gives the same picture as reading through.

That holds only for containers with an index and codecs with one shown frame per packet, with
8-bit pixels, times that are all there, distinct and sane, and no error met on the way. Anything
else makes `read_by_seeking` return None, and the clip is read through.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import av.error
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UnreadableClip
from pipeline.features.decoding.fit import fit_picture
from pipeline.features.decoding.pyav import Pictures, open_video, upright_size
from pipeline.features.decoding.through import Described, Kept, OnProgress
from pipeline.features.decoding.values import FramePlan
from pipeline.features.sampling import needs_length, sample_indices

LONG_FRAMES = 600
"""Clips of fewer frames are read through: listing their packets costs more than it saves."""

LARGEST_SHARE = 0.5
"""Seek only where at most this share of the frames has to be decoded."""

_CONTAINERS = {"mov", "mp4", "matroska", "webm"}
_CODECS = {"h264", "hevc", "vp9", "libdav1d", "av1"}
_EIGHT_BIT = {"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "gray"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SoughtClip:
    """What is known of a clip that was sought through; see `through.Described`."""

    decoder: str
    fps: float
    width: int
    height: int
    declared: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PacketTimes:
    """A clip's packets: times in presentation order, and where decoding can begin.

    times: (n,) int64, ascending, in the stream's time base. keys: the times of keyframes.
    """

    times: NDArray[np.int64]
    keys: NDArray[np.int64]


def read_by_seeking(
    path: str, plan: FramePlan, header: Described, on_progress: OnProgress
) -> tuple[Described, Kept, NDArray[np.int64]] | None:
    """The wanted frames of a long clip, or None where only reading through is sure and quick.

    `header` is what OpenCV says of the clip; the result keeps its rate and frame count.
    """
    guess = sample_indices(plan.sampling, header.declared, header.fps)
    if not needs_length(plan.sampling) and guess[-1] < LONG_FRAMES:
        return None  # the wanted frames are near the clip's start
    try:
        container, stream = open_video(path)
    except UnreadableClip:
        return None
    with container:
        packets = _list_packets(container, stream, on_progress)
        if packets is None:
            return None
        indices = sample_indices(plan.sampling, len(packets.times), header.fps)
        targets = packets.times[indices]
        if _frames_to_decode(packets, targets) > LARGEST_SHARE * _frames_of_reading(
            plan, packets, indices
        ):
            return None
        try:
            return _fetch(container, stream, packets, indices, plan, header, on_progress)
        except (av.error.FFmpegError, _NotExact):
            return None


class _NotExact(Exception):
    """A frame did not come where the packet times say it must."""


def _list_packets(container: Any, stream: Any, on_progress: OnProgress) -> PacketTimes | None:
    context = stream.codec_context
    if not _CONTAINERS & set(container.format.name.split(",")):
        return None
    if context.name not in _CODECS or context.pix_fmt not in _EIGHT_BIT:
        return None
    shown: list[int] = []
    keys: list[int] = []
    decode_times: list[int] = []
    try:
        for packet in container.demux(stream):
            if packet.size == 0 and packet.pts is None:  # the flush packet at the end
                continue
            on_progress()
            if packet.is_discard:
                continue
            if packet.pts is None or packet.is_corrupt:
                return None
            if not shown and not packet.is_keyframe:
                return None
            shown.append(packet.pts)
            if packet.is_keyframe:
                keys.append(packet.pts)
            if packet.dts is not None:
                decode_times.append(packet.dts)
    except av.error.FFmpegError:
        return None
    times = np.sort(np.array(shown, dtype=np.int64))
    # The first packet is shown first, or frames before it would hang on what is not there.
    sane = len(times) > 0 and times[0] == shown[0] and bool(np.all(np.diff(times) > 0))
    if not sane or any(b < a for a, b in pairwise(decode_times)):
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
    """How many frames reading through would decode: up to the last one a fixed rule wants."""
    return len(packets.times) if plan.sampling.rule == "uniform" else int(indices[-1]) + 1


def _fetch(
    container: Any,
    stream: Any,
    packets: PacketTimes,
    indices: NDArray[np.int64],
    plan: FramePlan,
    header: Described,
    on_progress: OnProgress,
) -> tuple[Described, Kept, NDArray[np.int64]]:
    kept = Kept(frames=len(packets.times), ended=True)
    pictures = Pictures()
    width, height = header.width, header.height
    base = float(stream.time_base)
    kept.first_time = float(packets.times[0]) * base
    frames: Iterator[Any] = iter(())
    reached: int | None = None  # the time of the last frame that came
    for index in indices.tolist():
        target = int(packets.times[index])
        key = _key_before(packets, target)
        if reached is None or key > reached:
            container.seek(key, stream=stream, backward=True, any_frame=False)
            frames = _frames_from(container, stream, key)
        frame = _advance(frames, target, on_progress)
        reached = target
        if frame.is_corrupt or (frame.width, frame.height) != (
            stream.codec_context.width,
            stream.codec_context.height,
        ):
            raise _NotExact
        width, height = upright_size(frame)
        kept.pictures[index] = fit_picture(pictures.of(frame), plan)
        kept.times[index] = target * base
    sought = SoughtClip(
        decoder="pyav", fps=header.fps, width=width, height=height, declared=header.declared
    )
    return sought, kept, indices


def _frames_from(container: Any, stream: Any, key: int) -> Iterator[Any]:
    """Frames in order of presentation, beginning with a packet at or before `key`."""
    first = True
    for packet in container.demux(stream):
        if first and (packet.pts is None or packet.pts > key or not packet.is_keyframe):
            raise _NotExact
        first = False
        yield from stream.decode(packet)


def _advance(frames: Iterator[Any], target: int, on_progress: OnProgress) -> Any:
    for frame in frames:
        on_progress()
        if frame.pts is None or frame.pts > target:
            raise _NotExact
        if frame.pts == target:
            return frame
    raise _NotExact
