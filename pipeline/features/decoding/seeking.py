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
from collections.abc import Iterator, Sequence, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.features.decoding.packets import NOT_EXACT, NotExact, PacketTimes, list_packets
from pipeline.features.decoding.through import Kept, OnProgress
from pipeline.features.decoding.video import Frame, Video
from pipeline.features.sampling import needs_length, rule_of, sample_indices
from pipeline.features.windows import Windows
from pipeline.spec import Sampling

LONG_FRAMES = 600
"""Clips of fewer frames are read through: listing their packets costs more than it saves."""

LARGEST_SHARE = 0.5
"""Seek only where at most this share of the frames has to be decoded."""

FEW_SKIPPED = 8
"""To decode so many frames that nobody wants costs no more than to seek past them: a seek loses the
frames that the decoder holds back."""


def read_by_seeking(video: Video, each: Sequence[Kept]) -> list[Windows] | None:
    """Keep the frames of a long clip that each plan wants; as `through.read_through`.

    None where seeking is not exact or not faster; the video cannot be read again then.
    """
    samplings = [kept.plan.sampling for kept in each]
    if all(_near_the_start(sampling, video) for sampling in samplings):
        return None
    packets = list_packets(video, each[0].on_progress)
    if packets is None:
        return None
    times = packets.seconds(video).tolist()
    for kept in each:
        kept.times, kept.ended = times, True
    wanted = [kept.wanted(video) for kept in each]
    indices = np.unique(np.concatenate([windows.frames for windows in wanted]))
    # Up to the last one, where reading through could stop there.
    whole = any(map(needs_length, samplings))
    reading = len(packets.times) if whole else int(indices[-1]) + 1
    if _frames_to_decode(packets, indices) > LARGEST_SHARE * reading:
        return None
    keepers = [(kept, set(its.frames.tolist())) for kept, its in zip(each, wanted, strict=True)]
    sought = Sought(video, packets, each[0].on_progress, indices)
    try:
        for index in indices.tolist():
            frame = Frame(index, times[index], sought.frame(index))
            for kept, its in keepers:
                if index in its:
                    kept.keep(video, frame)
    except NOT_EXACT:
        return None
    return wanted


class Sought:
    """The frames of a clip by their numbers, decoded from the keyframe before, or on from the last.

    wanted: the numbers that will be asked for; other frames that are disposable are not decoded.
    """

    def __init__(
        self,
        video: Video,
        packets: PacketTimes,
        on_progress: OnProgress,
        wanted: NDArray[np.int64],
    ) -> None:
        self._video, self._packets, self._on_progress = video, packets, on_progress
        self._begins = packets.begins()
        spare = packets.disposable.copy()
        spare[wanted] = False
        self._left_out = set(packets.times[spare].tolist())
        self._frames: Iterator[Any] = iter(())
        self._reached: int | None = None  # the number of the last frame that came

    def frame(self, index: int) -> Any:
        """FFmpeg's frame of this number, good until the next is asked for. Raises `NOT_EXACT`."""
        video, packets = self._video, self._packets
        context = video.stream.codec_context
        target = int(packets.times[index])
        if target in self._left_out:  # it was not expected to be wanted, and may have gone by
            self._left_out.discard(target)
            self._reached = None
        begin = int(self._begins[index])
        if self._reached is None or not begin - FEW_SKIPPED <= self._reached + 1 <= index:
            key = int(packets.times[begin])
            video.container.seek(key, stream=video.stream, backward=True, any_frame=False)
            self._frames = _frames_from(video, packets, key, self._left_out)
        for raw in self._frames:
            self._on_progress()
            if raw.pts == target:
                break
        else:
            raise NotExact
        self._reached = index
        if raw.is_corrupt or (raw.width, raw.height) != (context.width, context.height):
            raise NotExact
        video.turn_size(raw)
        return raw


def _near_the_start(sampling: Sampling, video: Video) -> bool:
    """Whether reading through would soon come to the last wanted frame."""
    if needs_length(sampling):
        return False
    if (moments_of := rule_of(sampling).moments) is not None:
        moments = moments_of(sampling, math.inf, video.tick_s)
        last_s = moments.start_s + (sampling.steps - 1) * moments.gap_s
        return last_s < LONG_FRAMES * video.frame_s
    return bool(sample_indices(sampling, video.expected())[-1] < LONG_FRAMES)


def _frames_to_decode(packets: PacketTimes, indices: NDArray[np.int64]) -> int:
    """How many frames seeking decodes for these, ascending."""
    total, reached = 0, -1
    begins = packets.begins()[indices]
    for index, begin in zip(indices.tolist(), begins.tolist(), strict=True):
        total += index - (begin if begin - FEW_SKIPPED > reached + 1 else reached + 1) + 1
        reached = index
    return total


def _frames_from(video: Video, packets: PacketTimes, key: int, left_out: Set[int]) -> Iterator[Any]:
    """The frame of `key` and all that follow it but those left out, in order of presentation.

    Raises `NotExact` at the first frame that is not the one whose turn it is by the packet times.
    """
    times = packets.times[np.searchsorted(packets.times, key) :].tolist()
    due = (time for time in times if time not in left_out)
    begun = False
    for raw in _decoded_from(video, key, left_out):
        if not begun and raw.pts is not None and raw.pts < key:
            yield raw  # a leading picture
            continue
        begun = True
        if raw.pts != next(due, None):
            raise NotExact
        yield raw


def _decoded_from(video: Video, key: int, left_out: Set[int]) -> Iterator[Any]:
    """What the decoder gives from the packet of `key` on."""
    first = True
    for packet in video.container.demux(video.stream):
        # A seek may land on a point before the key that does not decode cleanly.
        if first and packet.pts != key:
            if packet.pts is None or packet.pts > key:
                raise NotExact
            continue
        first = False
        if packet.pts in left_out and not packet.is_discard:
            continue
        for raw in video.stream.decode(packet):
            video.note_matrix(raw)
            yield raw
