"""Arrays that others made, into a store: planned, read, written and committed as stage one does it."""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import store
from flows.encoding import is_utf8
from flows.exchange.entries import Entry
from flows.exchange.labels import FOLLOWED, read_labels
from flows.exchange.rows import (
    Piece,
    Rules,
    clip_of,
    pieces_of,
    read_piece,
    require_small,
    row_id,
    spec_of,
)
from flows.exchange.sources import Source, find_source
from pipeline.errors import ConfigError, UnreadableClip
from pipeline.spec import IMPORTED, Spec

COMMIT_EVERY_S = 5.0


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
    spec = spec_of(source, rules, Path(path).name)
    existing = store.open(rules.store) if store.exists(rules.store) else None
    if existing is not None and existing.spec.get("backbone") != IMPORTED:
        raise store.StoreMismatch(
            f"the store {rules.store} has features that were computed here, and imported ones are "
            "others: name another STORE"
        )
    batch = rules.batch if existing is None else existing.batch
    require_small(spec, batch)
    pieces = list(pieces_of(source, spec.sampling.steps, split=rules.long == "split"))
    ids = pd.Series([row_id(piece) for piece in pieces])
    twice = ids[ids.duplicated() | (ids == "")]
    if len(twice):
        raise ConfigError(f"{path} has two arrays of the id {twice.iloc[0]!r}: rename one")
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
        return _Import(writer, source, rules, spec, on_progress).run(pieces)


class _Import:
    def __init__(
        self, writer: store.Writer, source: Source, rules: Rules, spec: Spec, on_progress: Any
    ) -> None:
        self._writer, self._source, self._rules, self._spec = writer, source, rules, spec
        self._on_progress = on_progress or (lambda done, total: None)
        self._result = Imported()

    def run(self, pieces: list[Piece]) -> Imported:
        writer = self._writer
        table = self._catalog(pieces)
        at = pd.Index(writer.column("video_id")).get_indexer(pd.Index(table["video_id"]))
        writer.unmake(writer.check_batches(writer.suspects))
        # Rows of these clips that are not made of them any more: they were split otherwise before.
        names, clips = set(table["video_id"]), {piece.entry.id for piece in pieces}
        rows = enumerate(writer.column("video_id").tolist())
        outdated = [row for row, name in rows if name not in names and clip_of(name) in clips]
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
        at[new] = writer.append(table.iloc[new])
        writer.set_attributes(classes=sorted(set(writer.column("label").tolist()) - {""}))
        todo = {int(at[i]): pieces[i] for i in sorted({*new.tolist(), *known[~same].tolist()})}
        size = int(writer.attributes["batch"])
        batches = sorted({row // size for row in todo})
        flushed, done, begun = time.monotonic(), 0, []
        try:
            for batch in batches:
                wanted = [row for row in writer.rows_of(batch) if row in todo]
                begun.append(batch)
                writer.in_flight(begun)
                self._make(batch, wanted, [todo[row] for row in wanted])
                done += len(wanted)
                self._on_progress(done, len(todo))
                if time.monotonic() - flushed >= COMMIT_EVERY_S:
                    writer.flush()
                    begun, flushed = [], time.monotonic()
        finally:
            writer.flush()
            writer.in_flight([])
        return self._result

    def _catalog(self, pieces: list[Piece]) -> pd.DataFrame:
        @functools.lru_cache(maxsize=1)  # neighbours share a file, or none does
        def size_and_time(file: str) -> tuple[int, int]:
            try:
                found = (self._source.root / file).stat()
            except (OSError, ValueError):  # a path with a NUL in it
                return -1, 0
            return found.st_size, found.st_mtime_ns

        stats = [size_and_time(piece.entry.file) for piece in pieces]
        sizes = np.array(stats, np.int64).reshape(-1, 2)
        names = {n: [getattr(piece.entry, n) for piece in pieces] for n in FOLLOWED}
        ids = [row_id(piece) for piece in pieces]
        return pd.DataFrame(
            {"video_id": ids, **names, "size_bytes": sizes[:, 0], "mtime_ns": sizes[:, 1]}
        )

    def _make(self, batch: int, rows: list[int], pieces: list[Piece]) -> None:
        """Write one chunk: what is kept of it, and these rows anew; set what is to be committed."""
        writer, steps = self._writer, self._spec.sampling.steps
        every = np.array(writer.rows_of(batch))
        first = int(every[0])
        kept = np.setdiff1d(every[writer.column("status")[every] == store.READY], rows)
        features = np.zeros((len(every), steps, *self._spec.shape), self._spec.dtype)
        if len(kept):
            present = store.read_batch(writer.url, batch)
            features[kept - first] = present[kept - first]
            sound = store.row_digests(features[kept - first]) == writer.column("digest")[kept]
            writer.mark(kept[~sound], store.PENDING)
        mask = np.zeros((len(rows), steps), bool)
        frames = np.full((len(rows), steps), -1, np.int32)
        times = np.full((len(rows), steps), np.nan, np.float32)
        fps, declared = np.full(len(rows), np.nan), np.full(len(rows), -1)
        reasons = [""] * len(rows)
        for i, (row, piece) in enumerate(zip(rows, pieces, strict=True)):
            try:
                told = self._source.told(piece.entry)
                steps_of = read_piece(self._source, piece, told, self._spec, self._rules)
            except UnreadableClip as error:
                reasons[i] = error.reason
                self._result.failed[error.reason] += 1
                if len(self._result.failures) < 1000:
                    failure = {"id": row_id(piece), "reason": error.reason, "detail": error.detail}
                    self._result.failures.append(failure)
                continue
            count = len(steps_of[0])
            features[row - first, :count], frames[i, :count], times[i, :count] = steps_of
            mask[i, :count] = True
            fps[i], declared[i] = told.fps, told.frames_declared
        index = np.array(rows)
        good = np.array([not reason for reason in reasons])
        digests = store.write_batch(writer.url, batch, features, token=writer.token)
        writer.set(index, digest=digests[index - first], fps=fps, frames_declared=declared)
        writer.set(index, frames_decoded=mask.sum(axis=1), decoder=IMPORTED)
        writer.put_steps(index, mask, frames, times)
        writer.mark(index[good], store.READY)
        writer.mark(index[~good], store.FAILED, np.array(reasons, object)[~good])
        self._result.ready += int(good.sum())


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
