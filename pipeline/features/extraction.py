"""A batch of clips → fixed-length, masked sequences of features, of one backbone or several.

Decoders (other processes) and the CNNs (a few threads) run at once. Clips are handed to the decoders
only as far ahead as a bounded number of bytes; their frames fill CNN batches across clips and
across concurrent calls, so that one call's end is filled up by the next one's beginning. A clip that
several backbones want is read once, and its frames go to each of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from numpy.typing import NDArray

from pipeline.features.backbones.family import Backbone
from pipeline.features.calls import Call, Running
from pipeline.features.decoding.values import ClipSource, Decoders
from pipeline.features.pending import Results, pending_clips
from pipeline.features.sequences import ClipResult
from pipeline.spec import Spec

__all__ = ["ClipResult", "ClipSource", "Decoders", "Extractor", "StreamsExtractor"]

_AHEAD_BYTES = 256 << 20


class StreamsExtractor:
    """Turns batches of clips into sequences of several streams; one per worker process.

    streams: the spec and the backbone of each. pool: reads by the plans of `Plans.of_specs`, in that
    order. `extract_streams` may run in several threads at once. `ahead_bytes`, for each plan, bounds the
    frames that are decoded or being decoded and have not reached the CNNs (those that a CNN reads where
    they lie come on top); it is raised to what keeps every CNN thread fed. A context manager: leaving it
    ends the CNNs' threads. The pool stays the caller's.
    """

    def __init__(
        self,
        streams: Sequence[tuple[Spec, Backbone]],
        pool: Decoders,
        *,
        ahead_bytes: int = _AHEAD_BYTES,
    ) -> None:
        self._running = Running(streams, pool, ahead_bytes=ahead_bytes)
        self._concurrency = [cnn.concurrency for _, cnn in streams]

    def extract_streams(
        self,
        clips: Sequence[ClipSource],
        *,
        wanted: Sequence[tuple[int, ...]] | None = None,
        on_clip: Callable[[Results], None] = lambda results: None,
        stop: threading.Event | None = None,
        into: Sequence[Mapping[int, NDArray[Any]]] | None = None,
    ) -> list[Results]:
        """The results of a batch of clips in each stream, in the clips' order.

        `wanted`: the streams of each clip; all if not given.
        `into`: for each clip where its features of a stream go, (steps, *shape) zeros of the spec's
        dtype, as they stay for a clip that is not ready; new arrays if not given.
        `on_clip` is called in this thread with the results of every clip as soon as all are known, in any
        order. Once `stop` is set, clips of which no frame has reached a CNN are returned as "stopped" in
        its stream, the others are finished. A clip that cannot be read fails in every stream; an error of
        an engine or of the decoder pool is raised.
        """
        running = self._running
        every = tuple(range(len(running.specs)))
        asked = [every] * len(clips) if wanted is None else wanted
        call = Call(running, pending_clips(clips, asked, into))
        with running.news:
            running.calls.append(call)
        running.changed()
        try:
            return call.run(on_clip, stop or threading.Event())
        finally:
            call.abandon()
            with running.news:
                running.calls.remove(call)
                running.news.notify_all()
            running.changed()

    def seconds(self, stream: int = 0) -> dict[str, float]:
        """Seconds so far by stage: decode (CPU time of the decoders), cnn and waiting (wall time).

        stream: whose CNN; the decoding is that of all streams. waiting: for frames, while some are
        expected. The last two are averages over the CNN's threads.
        """
        cnn = self._running.cnns[stream]
        wall = {"cnn": cnn.busy_s, "waiting": cnn.idle_s}
        mean = {name: seconds / self._concurrency[stream] for name, seconds in wall.items()}
        return {"decode": self._running.decode_s, **mean}

    def close(self) -> None:
        """End the CNNs' threads. No extraction may be running."""
        for cnn in self._running.cnns:
            cnn.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Extractor(StreamsExtractor):
    """The extractor of one stream."""

    def __init__(
        self, spec: Spec, backbone: Backbone, pool: Decoders, *, ahead_bytes: int = _AHEAD_BYTES
    ) -> None:
        super().__init__([(spec, backbone)], pool, ahead_bytes=ahead_bytes)

    def extract(
        self,
        clips: Sequence[ClipSource],
        *,
        on_clip: Callable[[ClipResult], None] = lambda result: None,
        stop: threading.Event | None = None,
        into: Sequence[NDArray[Any]] | None = None,
    ) -> list[ClipResult]:
        """The results of a batch of clips, in the clips' order; as `extract_streams`."""
        results = self.extract_streams(
            clips,
            on_clip=lambda its: on_clip(its[0]),
            stop=stop,
            into=None if into is None else [{0: room} for room in into],
        )
        return [its[0] for its in results]
