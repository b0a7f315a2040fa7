"""When a file's frames are shown, by its packets, and the rows that it makes: nothing is decoded."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UnreadableClip
from pipeline.features.decoding.clock import NEW_BEGINNING_S
from pipeline.features.decoding.opening import DAMAGED
from pipeline.features.decoding.packets import MOST_REORDERED
from pipeline.features.decoding.reading import check_file
from pipeline.features.decoding.video import Video
from pipeline.features.sampling import slack_of
from pipeline.spans import Span

_MOST_GUESSED = 1 << 24


def rows_of_file(
    path: str, row_s: float, first_s: float, on_progress: Callable[[], None] = lambda: None
) -> list[int]:
    """The numbers of the rows, `row_s` seconds each, in which a file shows frames, ascending.

    first_s: when a row's first step looks at it; the last row is long enough for that one.
    Raises `UnreadableClip` where the file cannot be opened or has no packet.
    """
    check_file(path)
    with Video(path) as video:
        times = packet_times(video, on_progress)
        if not len(times):
            raise UnreadableClip("no_frames", "the file has no packet of its video")
        slack_s, end_s = slack_of(video.tick_s), float(times[-1]) + video.frame_s
    rows = np.unique(((times + slack_s) // row_s).astype(np.int64)).tolist()
    while len(rows) > 1 and rows[-1] * row_s + first_s >= end_s - slack_s:
        rows.pop()
    return [int(row) for row in rows]


def times_by_rate(video: Video, spans: Sequence[Span]) -> NDArray[np.float64]:
    """(n,) seconds of every frame if the rate holds; up to the last bound of spans without a count."""
    count = video.expected()
    if not count:
        bounds = [span.end_frame or math.ceil((span.end_s or 0) / video.frame_s) for span in spans]
        count = min(max(bounds) + 2, _MOST_GUESSED)
    return np.arange(count, dtype=np.float64) * video.frame_s


def packet_times(video: Video, on_progress: Callable[[], None]) -> NDArray[np.float64]:
    """(n,) seconds of every frame from the first, rising, by the packets of an open video.

    Wrong stamps are mended as those of decoded frames are. The video has to be opened again to be read.
    """
    far_s = max(NEW_BEGINNING_S, MOST_REORDERED * video.frame_s)
    stamps = list(_in_order(_stamps(video, on_progress), MOST_REORDERED, far_s))
    following = itertools.chain(stamps[1:], [None])
    pairs = zip(stamps, following, strict=True)
    return np.array([video.clock.tick(stamp, after) for stamp, after in pairs], dtype=np.float64)


def _stamps(
    video: Video, on_progress: Callable[[], None]
) -> Iterator[tuple[float | None, float | None]]:
    """When each packet is shown and when it is decoded, in seconds as the file has them."""
    packets = video.container.demux(video.stream)
    while True:
        try:
            packet = next(packets, None)
        except DAMAGED:
            return  # damaged from here on
        if packet is None:
            return
        on_progress()
        if packet.size and not packet.is_discard:
            yield video.stamp_s(packet), video.decode_s(packet)


def _in_order(
    stamps: Iterator[tuple[float | None, float | None]], most: int, far_s: float
) -> Iterator[float | None]:
    """The stamps in order of presentation, of which none is further than `most` places away.

    far_s: a stamp that lies so far back belongs to a recording that was joined on, if its packet is also
    decoded earlier than the one before; else it is a picture between two that are far apart, of slides.
    """
    waiting: list[float] = []
    before: float | None = None
    for stamp, decode_s in stamps:
        turned_back = decode_s is not None and before is not None and decode_s <= before
        before = before if decode_s is None else decode_s
        if stamp is None:
            yield None
            continue
        if waiting and turned_back and stamp <= max(waiting) - far_s:
            yield from sorted(waiting)
            waiting.clear()
        heapq.heappush(waiting, stamp)
        if len(waiting) > most:
            yield heapq.heappop(waiting)
    while waiting:
        yield heapq.heappop(waiting)
