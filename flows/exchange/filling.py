"""An import's chunks: which values a chunk gets, read from the source, and what is committed of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

import store
from flows.exchange.entries import Entry
from flows.exchange.manifest import Told
from flows.exchange.rows import Rules, read_piece
from flows.exchange.sources import Source, State
from pipeline.errors import UnreadableClip
from pipeline.spec import IMPORTED

READERS = 4
"""Threads that read files at once: a disk answers several requests sooner than one after the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A chunk as it will be written, and what is to be committed of its new rows.

    features: of all its rows, (n, steps, *shape) · rows (m,) int64: the new ones · mask, frames, times:
    (m, steps) · fps, declared: (m,) · failed: position among the new ones → why it could not be read.
    """

    batch: int
    rows: NDArray[np.int64]
    features: NDArray[Any]
    mask: NDArray[np.bool_]
    frames: NDArray[np.int32]
    times: NDArray[np.float32]
    fps: NDArray[np.float32]
    declared: NDArray[np.int32]
    failed: dict[int, UnreadableClip] = field(default_factory=dict)

    def commit(self, writer: store.Writer, digests: NDArray[np.uint32]) -> None:
        """Set the columns of the new rows; `digests` are those of all rows of the chunk."""
        first, index = writer.rows_of(self.batch)[0], self.rows
        writer.set(index, digest=digests[index - first], fps=self.fps)
        writer.set(index, frames_declared=self.declared, decoder=IMPORTED)
        writer.set(index, frames_decoded=self.mask.sum(axis=1))
        writer.put_steps(index, self.mask, self.frames, self.times)
        good = np.array([i not in self.failed for i in range(len(index))])
        reasons = [error.reason for _, error in sorted(self.failed.items())]
        writer.mark(index[good], store.READY)
        writer.mark(index[~good], store.FAILED, np.array(reasons, object))


class ChunkReader:
    """Reads the rows of chunks from a source. `close` ends its threads."""

    def __init__(self, source: Source, rules: Rules, shape: tuple[int, ...], dtype: str) -> None:
        self._source, self._rules, self._shape, self._dtype = source, rules, shape, dtype
        self._threads = ThreadPoolExecutor(READERS)

    def close(self) -> None:
        self._threads.shutdown()
        self._source.close()

    def announce(self, pieces: Sequence[Entry]) -> None:
        """Say which are read next, so that the system has them by then."""
        if hasattr(os, "posix_fadvise"):
            for piece in pieces:
                self._source.announce(piece)

    def read(
        self, writer: store.Writer, batch: int, rows: Sequence[int], pieces: Sequence[Entry]
    ) -> Chunk:
        """A chunk with these rows as the source has them, and the other ready rows as they are.

        A ready row of the chunk whose features are damaged is marked pending.
        """
        every, index, count = writer.rows_of(batch), np.array(rows), len(rows)
        steps = self._shape[0]
        chunk = Chunk(
            batch=batch,
            rows=index,
            features=np.empty((len(every), *self._shape), self._dtype),
            mask=np.zeros((count, steps), bool),
            frames=np.full((count, steps), -1, np.int32),
            times=np.full((count, steps), np.nan, np.float32),
            fps=np.full(count, np.nan, np.float32),
            declared=np.full(count, -1, np.int32),
        )
        _keep_others(writer, chunk)
        told = [self._told(piece) for piece in pieces]
        states = [writer.column(name)[index].tolist() for name in ("size_bytes", "mtime_ns")]

        def read_some(positions: Sequence[int]) -> None:
            for i in positions:
                out, state = chunk.features[rows[i] - every[0]], (states[0][i], states[1][i])
                self._read_row(chunk, i, out, pieces[i], told[i], state)

        if any(self._source.in_order(piece) for piece in pieces):
            read_some(range(count))
        else:
            list(self._threads.map(read_some, (range(n, count, READERS) for n in range(READERS))))
        return chunk

    def _told(self, piece: Entry) -> Told | UnreadableClip:
        try:
            return self._source.told(piece)
        except UnreadableClip as error:
            return error

    def _read_row(
        self, chunk: Chunk, i: int, out: NDArray[Any], piece: Entry, told: Told | UnreadableClip,
        state: State,
    ) -> None:  # fmt: skip
        try:
            if isinstance(told, UnreadableClip):
                raise told
            frames, times = read_piece(self._source, piece, told, state, self._rules, out)
        except UnreadableClip as error:
            out[:] = 0
            chunk.failed[i] = error
            return
        count = len(frames)
        chunk.mask[i, :count] = True
        chunk.frames[i, :count], chunk.times[i, :count] = frames, times
        chunk.fps[i], chunk.declared[i] = told.fps, told.frames_declared


def _keep_others(writer: store.Writer, chunk: Chunk) -> None:
    """The chunk's rows that are not made now: ready ones as they are, zeros for all else."""
    every = np.array(writer.rows_of(chunk.batch))
    others = np.setdiff1d(every, chunk.rows)
    chunk.features[others - every[0]] = 0
    kept = others[writer.column("status")[others] == store.READY]
    if not len(kept):
        return
    at = kept - every[0]
    chunk.features[at] = store.read_batch(writer.url, chunk.batch)[at]
    sound = store.row_digests(chunk.features[at]) == writer.column("digest")[kept]
    writer.mark(kept[~sound], store.PENDING)
