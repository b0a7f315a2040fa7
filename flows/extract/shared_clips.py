"""The clips of the batches that one task makes, each once, whichever stores want it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flows.extract.values import Batch
from pipeline.features.decoding.values import ClipSource


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedClips:
    """The clips of a task's batches, each once.

    sources: what is read · stores: of each clip, the numbers of the stores that want it · first: of
    each, the store and the row by which it is counted · places: of each batch, where its clips are in
    `sources`.
    """

    parts: tuple[Batch, ...]
    sources: list[ClipSource]
    stores: list[tuple[int, ...]]
    first: list[tuple[int, int]]
    places: list[list[int]]

    @classmethod
    def of(cls, parts: tuple[Batch, ...]) -> SharedClips:
        """The clips of these batches, in the order in which they stand there."""
        place: dict[str, int] = {}
        sources: list[ClipSource] = []
        stores: list[list[int]] = []
        first: list[tuple[int, int]] = []
        places = []
        for part in parts:
            for clip in part.clips:
                at = place.setdefault(clip.id, len(place))
                if at == len(sources):
                    size = max(clip.size_bytes, 0)
                    sources.append(ClipSource(clip.path, size, clip.span, clip.sha256))
                    stores.append([])
                    first.append((part.store, clip.row))
                stores[at].append(part.store)
            places.append([place[clip.id] for clip in part.clips])
        each = [tuple(sorted(wanted)) for wanted in stores]
        return cls(parts=parts, sources=sources, stores=each, first=first, places=places)

    def rooms(self, chunks: list[np.ndarray]) -> list[dict[int, np.ndarray]]:
        """For each clip where its features go, by store. chunks: of the batches."""
        rooms: list[dict[int, np.ndarray]] = [{} for _ in self.sources]
        for part, chunk, places in zip(self.parts, chunks, self.places, strict=True):
            for clip, at in zip(part.clips, places, strict=True):
                rooms[at][part.store] = chunk[clip.row - part.first_row]
        return rooms

    def counted(self, number: int) -> np.ndarray | None:
        """Which clips of a batch stand in none before it, (clips,) bool; None for all."""
        if not number:
            return None
        before = {at for places in self.places[:number] for at in places}
        return np.array([at not in before for at in self.places[number]], bool)
