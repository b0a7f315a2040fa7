"""Reading through a clip without decoding what nobody wants and nothing else is decoded from.

An encoder marks such frames, most of its B-frames: they are disposable. Left out, all others decode to
the same pixels, by the rules of the codec. What counts is which frame a packet holds, and that is known
by its time stamp alone: so all packets are met before the first is decoded, and where their stamps are
not as regular as a frame rate makes them, or a packet is damaged, every frame is decoded. A wrong stamp
cannot shift the count: it would leave a gap. Every frame that is decoded must be the one that is due.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence, Set
from typing import Any

import numpy as np

from pipeline.features.decoding.packets import NotExact, Packets, are_regular, may_be_sought
from pipeline.features.decoding.video import Frame, Video, shows

_LARGEST_SHARE = 0.9
"""Where more than this share of the frames is wanted there is too little to leave out."""

_MOST_BYTES = 64 << 20
"""Of the packets that are held in memory: clips with more are decoded whole."""


def frames_of(video: Video, wanted: Set[int]) -> Iterator[Frame]:
    """All frames of an open clip, of which those that are not wanted may lack their `raw`.

    Raises `NOT_EXACT` where a frame is not the one that its packet says it is.
    """
    parser = Packets.of(video.stream.codec_context)
    few = len(wanted) <= _LARGEST_SHARE * video.expected()
    if not few or not parser.tells_disposable or not may_be_sought(video):
        return iter(video)
    packets = video.packets()
    held = list(_first_of(packets))
    shown = _in_order(held)
    # The first frame says the clip's size.
    needed = {packet.pts for i, packet in enumerate(shown) if i in wanted or not i}
    if not needed:
        return video.frames_of(video.decoded(itertools.chain(held, packets)))
    while held[-1].pts not in needed and (not held[-1].size or parser.whole(held[-1])):
        held.pop()  # what is decoded after the last that is wanted, and would give its frame
    held = [packet for packet in held if packet.pts in needed or not parser.disposable(packet)]
    return video.frames_of(_decoded(video, held, shown))


def _first_of(packets: Iterator[Any]) -> Iterator[Any]:
    size = 0
    for packet in packets:
        size += packet.size
        yield packet
        if size > _MOST_BYTES:
            return


def _in_order(packets: Sequence[Any]) -> list[Any]:
    """The packets in order of presentation; none where that, or that these are all, is not certain."""
    shown = [packet for packet in packets if shows(packet)]
    # The last one is empty, unless there are more, or the file is damaged.
    if not shown or packets[-1].size or any(p.pts is None or p.is_corrupt for p in shown):
        return []
    shown.sort(key=lambda packet: int(packet.pts))
    return shown if are_regular(np.array([packet.pts for packet in shown])) else []


def _decoded(video: Video, packets: Sequence[Any], shown: Sequence[Any]) -> Iterator[Any]:
    """FFmpeg's frames of these packets, and in the place of each of the others that is shown itself."""
    decoded = {packet.pts for packet in packets}
    rest = iter(shown)
    for packet in (*packets, None):
        frames = video.stream.decode(packet)
        while frames:
            for due in rest:
                if due.pts in decoded:
                    break
                yield due
            else:
                raise NotExact
            if frames[0].pts != due.pts or frames[0].is_corrupt:
                raise NotExact
            yield frames.pop(0)
    for due in rest:
        if due.pts in decoded:
            raise NotExact
        yield due
