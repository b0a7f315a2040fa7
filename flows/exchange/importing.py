"""Arrays that others made, into a store: planned, read, written and committed as stage one does it."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import store
from flows.encoding import is_utf8
from flows.exchange.entries import Entry
from flows.exchange.filling import Chunk, ChunkReader
from flows.exchange.labels import FOLLOWED, read_labels
from flows.exchange.rows import (
    Rules,
    clip_of,
    pieces_of,
    require_small,
    row_id,
    spec_of,
)
from flows.exchange.sources import Source, find_source
from pipeline.errors import ConfigError
from pipeline.spec import IMPORTED, Spec

COMMIT_EVERY_S = 5.0
_WRITERS = 2  # chunks that are written at once, beside the one that is read
_TOLD_AT_ONCE = 8  # chunks that the lease says may be written
_AHEAD_BYTES = 1 << 28  # of chunks that are written while the next is read
_TOLD_FAILURES = 1000


@dataclass(slots=True)
class Imported:
    """What an import did: rows by what became of them, failures with reason and detail."""

    ready: int = 0
    kept: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, str]] = field(default_factory=list)


def import_clips(
    path: str,
    rules: Rules,
    *,
    labels: str = "",
    transpose: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Imported:
    """Import what `path` holds; what is unchanged stays. Raises `ConfigError`, `store.StoreError`."""
    source = find_source(path, transpose=transpose)
    if labels:
        source.entries = _with_labels(source.entries, labels)
    _require_text(path, source.entries)
    # Before anything of them is read: one that changes during the import is not taken for what it was.
    states = np.fromiter((source.state(e.file) for e in source.entries), np.dtype((np.int64, 2)))
    spec = spec_of(source, rules, Path(path).name)
    existing = store.open(rules.store) if store.exists(rules.store) else None
    if existing is not None and existing.spec.get("backbone") != IMPORTED:
        raise store.StoreMismatch(
            f"the store {rules.store} has features that were computed here, and imported ones are "
            "others: name another STORE"
        )
    if existing is not None:
        _require_same(existing, spec)
        _require_way(existing, source)
    batch = rules.batch if existing is None else existing.batch
    require_small(spec, batch)
    pieces = source.entries
    if rules.long == "split":
        pieces = list(pieces_of(source, spec.sampling.steps))
    _require_different(path, pieces)
    steps = spec.sampling.steps
    store.create(
        rules.store,
        layout=store.Layout(steps=steps, shape=spec.shape, dtype=spec.dtype, batch=batch),
        spec=spec.to_dict(),
        fingerprint=spec.fingerprint,
        software={"numpy": np.__version__},
        lease=rules.lease,
    )
    with store.Writer.acquire(rules.store, owner="import", lease=rules.lease) as writer:
        entry = np.cumsum([not piece.start for piece in pieces]) - 1
        return _Import(writer, source, rules, spec, on_progress).run(pieces, states[entry])


class _Import:
    def __init__(
        self, writer: store.Writer, source: Source, rules: Rules, spec: Spec, on_progress: Any
    ) -> None:
        self._writer, self._source, self._rules, self._spec = writer, source, rules, spec
        self._on_progress = on_progress or (lambda done, total: None)
        self._result = Imported()

    def run(self, pieces: list[Entry], states: NDArray[np.int64]) -> Imported:
        self._make(*self._plan(pieces, states))
        return self._result

    def _plan(
        self, pieces: list[Entry], states: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], list[Entry]]:
        """Commit the rows of these pieces; returns those to be made, ascending, and their pieces.

        states: (n, 2), bytes and nanoseconds of the pieces' files.
        """
        writer = self._writer
        writer.unmake(writer.check_batches(writer.suspects))
        table = _catalog(pieces, states)
        # As objects: pandas would make another text of each.
        ids = pd.Index(table["video_id"], dtype=object)
        at = pd.Index(writer.column("video_id"), dtype=object).get_indexer(ids)
        outdated = self._outdated(pieces, ids)
        writer.mark(outdated, store.GONE)
        writer.unmake(outdated)
        known = np.flatnonzero(at >= 0)
        status = writer.column("status")[at[known]]
        same = status == store.READY
        for name in ("size_bytes", "mtime_ns"):
            same &= writer.column(name)[at[known]] == table[name].to_numpy()[known]
        # Before the new sizes and times: with them, the old features would count as the file's.
        writer.unmake(at[known[~same]], present=True)
        for name in (*FOLLOWED, "size_bytes", "mtime_ns"):
            writer.set(at[known], **{name: table[name].to_numpy()[known]})
        writer.flush()
        self._result.kept = int((status[same] == store.READY).sum())
        new = np.flatnonzero(at < 0)
        at[new] = writer.append(table.iloc[new] if len(known) else table)
        classes = sorted(set(writer.column("label").tolist()) - {""})
        writer.set_attributes(**{"classes": classes, TRANSPOSED: self._source.transpose})
        todo = np.concatenate([new, known[~same]])
        todo = todo[np.argsort(at[todo])]
        return at[todo], [pieces[i] for i in todo.tolist()]

    def _outdated(self, pieces: list[Entry], ids: pd.Index) -> NDArray[np.int64]:
        """Rows of these clips that are not made of them any more: they were split otherwise before."""
        names = self._writer.column("video_id")
        others = np.flatnonzero(~pd.Index(names, dtype=object).isin(ids))
        clips = {piece.id for piece in pieces} if len(others) else set()
        return others[[clip_of(name) in clips for name in names[others].tolist()]]

    def _make(self, todo: NDArray[np.int64], pieces: list[Entry]) -> None:
        """Read, write and commit the chunks of these rows: while some are written, the next is read."""

        def of(batch: int) -> tuple[list[int], list[Entry]]:
            first, last = np.searchsorted(todo, (batch * size, (batch + 1) * size))
            return todo[first:last].tolist(), pieces[first:last]

        writer, spec = self._writer, self._spec
        size = int(writer.attributes["batch"])
        shape = (spec.sampling.steps, *spec.shape)
        ahead = min(_WRITERS, _AHEAD_BYTES // (size * spec.row_bytes))
        reader = ChunkReader(self._source, self._rules, shape, spec.dtype)
        writing: deque[tuple[Chunk, Future[NDArray[np.uint32]]]] = deque()
        flushed, begun = time.monotonic(), list[int]()
        try:
            with closing(reader), ThreadPoolExecutor(max(1, ahead)) as threads:
                batches = np.unique(todo // size).tolist()
                for i, (batch, following) in enumerate(
                    zip_longest(batches, batches[1:], fillvalue=-1)
                ):
                    reader.announce(of(following)[1])
                    chunk = reader.read(writer, batch, *of(batch))
                    begun.append(batch)
                    if not i % _TOLD_AT_ONCE:
                        writer.in_flight([*begun, *batches[i + 1 : i + _TOLD_AT_ONCE]])
                    write = threads.submit(
                        store.write_batch, writer.url, batch, chunk.features, token=writer.token
                    )
                    writing.append((chunk, write))
                    while len(writing) > ahead or (writing and writing[0][1].done()):
                        self._finish(*writing.popleft(), total=len(todo))
                    del chunk  # else it is in memory while the next is read
                    if time.monotonic() - flushed >= COMMIT_EVERY_S:
                        writer.flush()
                        begun, flushed = [chunk.batch for chunk, _ in writing], time.monotonic()
                while writing:
                    self._finish(*writing.popleft(), total=len(todo))
        finally:
            writer.flush()
            writer.in_flight([])

    def _finish(self, chunk: Chunk, write: Future[NDArray[np.uint32]], *, total: int) -> None:
        """Set what is to be committed of a chunk, once it is written."""
        chunk.commit(self._writer, write.result())
        result = self._result
        for i, error in sorted(chunk.failed.items()):
            result.failed[error.reason] += 1
            if len(result.failures) < _TOLD_FAILURES:
                name = str(self._writer.column("video_id")[chunk.rows[i]])
                failure = {"id": name, "reason": error.reason, "detail": error.detail}
                result.failures.append(failure)
        result.ready += len(chunk.rows) - len(chunk.failed)
        self._on_progress(result.ready + sum(result.failed.values()), total)


def _catalog(pieces: list[Entry], states: NDArray[np.int64]) -> pd.DataFrame:
    texts = {n: [getattr(piece, n) for piece in pieces] for n in FOLLOWED}
    texts["video_id"] = [row_id(piece) for piece in pieces]
    # As objects, they are not copied.
    frame = pd.DataFrame({name: pd.Series(texts[name], dtype=object) for name in texts})
    return frame.assign(size_bytes=states[:, 0], mtime_ns=states[:, 1])


def _require_different(path: str, pieces: list[Entry]) -> None:
    """Raise `ConfigError` where two rows would have one id, or one has none."""
    ids = pd.Index([row_id(piece) for piece in pieces], dtype=object)
    twice = ids[ids.duplicated() | (ids == "")]
    if len(twice):
        raise ConfigError(f"{path} has two arrays of the id {twice[0]!r}: rename one")


def _require_way(existing: store.Store, source: Source) -> None:
    """Raise `StoreMismatch` where arrays would lie the other way round than those that are there."""
    if existing.attributes.get(TRANSPOSED) not in (None, source.transpose):
        given = "without" if source.transpose else "with"
        raise store.StoreMismatch(
            f"the store {existing.url} was imported {given} --transpose: do the same, or name another "
            "STORE"
        )


TRANSPOSED = "import_transposed"
"""The store's attribute that says whether arrays were turned; stores of older versions lack it."""


def _require_same(existing: store.Store, spec: Spec) -> None:
    """Raise `StoreMismatch` where an import would be of another spec than the store, saying in what."""
    old, new = ({**values, **values["sampling"]} for values in (existing.spec, spec.to_dict()))
    for name, remedy in _REMEDIES.items():
        if name in old and name in new and old[name] != new[name]:
            raise store.StoreMismatch(
                f"the store {existing.url} has {name} {old[name]!r}, not {new[name]!r}: "
                f"{remedy}, or name another STORE"
            )


_REMEDIES = {
    "source": "give --source as it was given before",
    "steps": "give --steps as it was given before",
    "dtype": "give --dtype as the store has it",
    "shape": "import arrays of that width (or --transpose them)",
    "rule": "give --sampling as it was given before",
    "stride": "give --sampling as it was given before",
    "fps": "give --sampling as it was given before",
}


def _require_text(path: str, entries: list[Entry]) -> None:
    """Raise `ConfigError` for a name that is not UTF-8, which a store cannot hold."""
    for entry in entries:
        for value in (entry.id, *(getattr(entry, name) for name in FOLLOWED)):
            if not is_utf8(value):
                raise ConfigError(f"{path} has the name {value!r}, which is not UTF-8: rename it")


def _with_labels(entries: list[Entry], path: str) -> list[Entry]:
    labels = read_labels(path)
    names = [name for name in FOLLOWED if name in labels]
    told = {
        values[0]: dict(zip(names, values[1:], strict=True))
        for values in labels[["id", *names]].itertuples(index=False, name=None)
    }
    return [
        replace(entry, **(told.get(entry.id) or told.get(entry.file) or {})) for entry in entries
    ]
