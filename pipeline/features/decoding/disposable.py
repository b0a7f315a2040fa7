"""Reading through a clip without decoding what nobody wants and nothing else is decoded from.

An encoder marks such frames, most of its B-frames: they are disposable. Left out, all others decode to
the same pixels, by the rules of the codec. What counts is which frame a packet holds. So all packets are
met before the first is decoded; and where the stream itself does not show its pictures in the order of
their time stamps, or says anything that is not understood here, every frame is decoded. So it is where
a frame that comes is not the one that is due.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence, Set
from typing import Any

import numpy as np

from pipeline.features.decoding.h264 import PictureOrder
from pipeline.features.decoding.packets import NotExact, may_be_sought
from pipeline.features.decoding.video import Frame, Video, shows

_LARGEST_SHARE = 0.9
"""Where more than this share of the frames is wanted there is too little to leave out."""

_MOST_BYTES = 64 << 20
"""Of the packets that are held in memory: clips with more are decoded whole."""


def frames_of(video: Video, wanted: Set[int], on_progress: Callable[[], None]) -> Iterator[Frame]:
    """All frames of an open clip, of which those that are not wanted may lack their `raw`.

    on_progress: called for every packet that is met before the first frame.
    Raises `NOT_EXACT` where a frame is not the one that its packet says it is.
    """
    order = PictureOrder.of(video.stream.codec_context)
    few = len(wanted) <= _LARGEST_SHARE * video.expected()
    if order is None or not few or not may_be_sought(video):
        return iter(video)
    packets = video.packets()
    held = []
    for packet in _first_of(packets):
        on_progress()
        order.meet(packet, shown=shows(packet))
        held.append(packet)
    met = [packet for packet in held if shows(packet)]
    # The last one is empty, unless there are more, or the file is damaged.
    is_whole = bool(met) and not held[-1].size and all(packet.pts is not None for packet in met)
    if not is_whole or not order.is_that_of(np.array([packet.pts for packet in met])):
        return video.frames_of(video.decoded(itertools.chain(held, packets)))
    spare = {
        packet.pts for packet, none_refers in zip(met, order.disposable, strict=True) if none_refers
    }
    shown = sorted(met, key=lambda packet: int(packet.pts))
    # The first frame says the clip's size.
    needed = {packet.pts for i, packet in enumerate(shown) if i in wanted or not i}
    while held[-1].pts not in needed or not shows(held[-1]):
        held.pop()  # what is decoded after the last that is wanted
    left_out = spare - needed
    held = [packet for packet in held if packet.pts not in left_out or not shows(packet)]
    return video.frames_of(_decoded(video, held, shown))


def _first_of(packets: Iterator[Any]) -> Iterator[Any]:
    size = 0
    for packet in packets:
        size += packet.size
        yield packet
        if size > _MOST_BYTES:
            return


def _decoded(video: Video, packets: Sequence[Any], shown: Sequence[Any]) -> Iterator[Any]:
    """FFmpeg's frames of these packets, and in the place of each of the others that is shown itself."""
    decoded = {packet.pts for packet in packets if shows(packet)}
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
