"""One clip of a running extraction: which streams want it, how far it has come, and its results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UnreadableClip
from pipeline.features.decoding.values import ClipFrames, ClipSource, FramePlan, Part
from pipeline.features.jobs import Job
from pipeline.features.sequences import ClipResult, empty_result, ready_result
from pipeline.spec import Spec

_NO_FRAMES = np.empty((0, 0, 0, 3), np.uint8)

Results = dict[int, ClipResult]
"""A clip's results by the number of the stream."""


@dataclass(frozen=True, slots=True)
class Plans:
    """The distinct frame plans of several specs: frames that two specs want alike are fitted once.

    of: for each spec the place of its plan in `distinct`.
    """

    distinct: tuple[FramePlan, ...]
    of: tuple[int, ...]

    @classmethod
    def of_specs(cls, specs: Iterable[Spec]) -> Plans:
        """Raises `ConfigError` on an interpolation that is not known."""
        plans = [FramePlan.of(spec) for spec in specs]
        distinct = tuple(dict.fromkeys(plans))
        return cls(distinct, tuple(distinct.index(plan) for plan in plans))

    def needed(self, streams: Iterable[int]) -> tuple[int, ...]:
        """The plans that these streams read, ascending."""
        return tuple(sorted({self.of[stream] for stream in streams}))

    def frames_of(
        self, streams: Sequence[int], first: ClipFrames
    ) -> tuple[dict[int, ClipFrames], tuple[ClipFrames, ...]]:
        """Each stream's frames, and those of every plan that was read for them.

        first: of a reading by the plans that are `needed`.
        """
        read = (first, *first.further)
        place = {plan: read[i] for i, plan in enumerate(self.needed(streams))}
        return {stream: place[self.of[stream]] for stream in streams}, read


@dataclass(slots=True, eq=False)
class PendingClip:
    """One clip of a call. Everything that changes is guarded by the extractor's condition.

    streams: those that want it. rooms: where their features go, by stream; new arrays where absent.
    unread: streams whose frames the CNN has not taken in yet. undone: streams without features yet.
    stopped: streams that were left out before any of their frames reached the CNN.
    """

    index: int
    source: ClipSource
    streams: tuple[int, ...]
    rooms: dict[int, NDArray[Any]]
    part: Part | None = None
    state: Literal["waiting", "reading", "queued", "over"] = "waiting"
    future: Future[ClipFrames] | None = None
    frames: dict[int, ClipFrames] = field(default_factory=dict)
    lent: tuple[ClipFrames, ...] = ()
    jobs: dict[int, Job] = field(default_factory=dict)
    unread: int = 0
    undone: set[int] = field(default_factory=set)
    stopped: set[int] = field(default_factory=set)

    def room(self, stream: int, spec: Spec) -> NDArray[Any]:
        """Where the stream's features go, (steps, *shape) zeros of the spec's dtype."""
        if stream not in self.rooms:
            self.rooms[stream] = np.zeros((spec.sampling.steps, *spec.shape), spec.dtype)
        return self.rooms[stream]

    def give_back(self) -> None:
        """The frames are needed no more: their memory goes back to the pool."""
        for frames in self.lent:
            frames.release()
        self.lent = ()
        self.frames = {
            stream: replace(frames, frames=_NO_FRAMES, place=None, further=())
            for stream, frames in self.frames.items()
        }

    def results(self, specs: Sequence[Spec], error: UnreadableClip | None) -> Results:
        """What came of the clip in each stream; it holds on to nothing afterwards.

        error: why it could not be read: then it fails in every stream.
        """
        if error is not None:
            return {
                stream: replace(
                    empty_result(specs[stream], self.index, "failed", error.reason, error.detail),
                    sha256=error.sha256,
                )
                for stream in self.streams
            }
        results = {
            stream: empty_result(specs[stream], self.index, "stopped")
            if stream in self.stopped
            else ready_result(specs[stream], self.index, self.frames[stream], self.rooms[stream])
            for stream in self.streams
        }
        self.jobs, self.frames, self.rooms = {}, {}, {}
        return results

    def left_out(self, specs: Sequence[Spec]) -> Results:
        """The results of a clip that was not begun."""
        return {
            stream: empty_result(specs[stream], self.index, "stopped") for stream in self.streams
        }


def pending_clips(
    sources: Sequence[ClipSource],
    wanted: Sequence[tuple[int, ...]],
    into: Sequence[Mapping[int, NDArray[Any]]] | None,
) -> list[PendingClip]:
    """The clips of a call. wanted: the streams of each. into: see `StreamsExtractor.extract_streams`."""
    rooms: Sequence[Mapping[int, NDArray[Any]]] = [{}] * len(sources) if into is None else into
    each = zip(sources, wanted, rooms, strict=True)
    return [
        PendingClip(index, source, streams, dict(places))
        for index, (source, streams, places) in enumerate(each)
    ]
