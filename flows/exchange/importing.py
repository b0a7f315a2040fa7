"""Arrays that others made, into a store: planned, read, written and committed as stage one does it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pandas as pd

import store
from flows.exchange.arrays import Foreign
from flows.exchange.labels import FOLLOWED, read_labels
from flows.exchange.sources import Entry, Source, find_source
from pipeline.errors import ConfigError, UnreadableClip
from pipeline.spec import IMPORTED, RULES, Sampling, Spec

COMMIT_EVERY_S = 5.0
_NUMBERS = {"frames_declared": -1, "fps": np.nan}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How arrays become rows. See `flows.cli.import_.Settings`."""

    store: str
    steps: int = 0
    long: str = "refuse"
    dtype: str = "auto"
    source: str = ""
    sampling: str = ""
    batch: int = 64
    lease: bool = True


@dataclass(slots=True)
class Imported:
    """What an import did: rows by what became of them, failures with reason and detail."""

    ready: int = 0
    kept: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, str]] = field(default_factory=list)
    longest: int = 0


@dataclass(frozen=True, slots=True)
class _Piece:
    """The steps of an entry that one row takes; `stop` is −1 where that is not known before."""

    entry: Entry
    start: int = 0
    stop: int = -1


def import_clips(
    path: str,
    rules: Rules,
    *,
    labels: str = "",
    transpose: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Imported:
    """Import everything that `path` holds into the store; what is there unchanged stays.

    Raises `ConfigError` where nothing can be imported, `store.StoreError`.
    """
    source = find_source(path, transpose=transpose)
    if labels:
        source.entries = _with_labels(source.entries, labels)
    ids = pd.Series([entry.id for entry in source.entries])
    twice = ids[ids.duplicated() | (ids == "")]
    if len(twice):
        raise ConfigError(f"{path} has two arrays of the id {twice.iloc[0]!r}: rename one")
    spec = _spec_of(source, rules, Path(path).name)
    pieces = list(_pieces(source, spec.sampling.steps, split=rules.long == "split"))
    existing = store.open(rules.store) if store.exists(rules.store) else None
    if existing is not None and existing.spec.get("backbone") != IMPORTED:
        raise store.StoreMismatch(
            f"the store {rules.store} has features that were computed here, and imported ones are "
            "others: name another STORE"
        )
    layout = store.Layout(
        steps=spec.sampling.steps,
        shape=spec.shape,
        dtype=spec.dtype,
        batch=rules.batch if existing is None else existing.batch,
    )
    store.create(
        rules.store,
        layout=layout,
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

    def run(self, pieces: list[_Piece]) -> Imported:
        writer = self._writer
        table = self._catalog(pieces)
        at = pd.Index(writer.column("video_id")).get_indexer(pd.Index(table["video_id"]))
        damaged = writer.check_batches(writer.suspects)
        writer.mark(damaged, store.PENDING)
        known = np.flatnonzero(at >= 0)
        status = writer.column("status")[at[known]]
        same = status == store.READY
        for name in ("size_bytes", "mtime_ns"):
            same &= writer.column(name)[at[known]] == table[name].to_numpy()[known]
        for name in (*FOLLOWED, "size_bytes", "mtime_ns"):
            writer.set(at[known], **{name: table[name].to_numpy()[known]})
        writer.mark(at[known[~same]], store.PENDING)
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
                rows = [row for row in writer.rows_of(batch) if row in todo]
                begun.append(batch)
                writer.in_flight(begun)
                self._make(batch, rows, [todo[row] for row in rows])
                done += len(rows)
                self._on_progress(done, len(todo))
                if time.monotonic() - flushed >= COMMIT_EVERY_S:
                    writer.flush()
                    begun, flushed = [], time.monotonic()
        finally:
            writer.flush()
            writer.in_flight([])
        return self._result

    def _catalog(self, pieces: list[_Piece]) -> pd.DataFrame:
        stats: dict[str, tuple[int, int]] = {}
        sizes = np.empty((len(pieces), 2), np.int64)
        for i, piece in enumerate(pieces):
            name = piece.entry.file
            if name not in stats:
                stats.clear()  # neighbours share a file, or none does
                try:
                    found = (self._source.root / name).stat()
                    stats[name] = found.st_size, found.st_mtime_ns
                except OSError:
                    stats[name] = -1, 0
            sizes[i] = stats[name]
        names = {n: [getattr(piece.entry, n) for piece in pieces] for n in FOLLOWED}
        ids = [_row_id(piece) for piece in pieces]
        return pd.DataFrame(
            {"video_id": ids, **names, "size_bytes": sizes[:, 0], "mtime_ns": sizes[:, 1]}
        )

    def _make(self, batch: int, rows: list[int], pieces: list[_Piece]) -> None:
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
        numbers = {name: np.full(len(rows), value) for name, value in _NUMBERS.items()}
        reasons = [""] * len(rows)
        for i, (row, piece) in enumerate(zip(rows, pieces, strict=True)):
            try:
                told = self._source.told(piece.entry)
                values, at, when = self._read(piece, told)
            except UnreadableClip as error:
                reasons[i] = error.reason
                self._fail(piece, error)
                continue
            count = len(values)
            features[row - first, :count] = values
            mask[i, :count], frames[i, :count], times[i, :count] = True, at, when
            numbers["frames_declared"][i] = int(told.get("frames_declared", -1))
            numbers["fps"][i] = float(told.get("fps") or np.nan)
        index = np.array(rows)
        good = np.array([not reason for reason in reasons])
        digests = store.write_batch(writer.url, batch, features, token=writer.token)
        writer.set(index, digest=digests[index - first], **numbers)
        writer.set(index, frames_decoded=mask.sum(axis=1), decoder=IMPORTED)
        writer.put_steps(index, mask, frames, times)
        writer.mark(index[good], store.READY)
        writer.mark(index[~good], store.FAILED, np.array(reasons, object)[~good])
        self._result.ready += int(good.sum())

    def _read(self, piece: _Piece, told: dict[str, Any]) -> tuple[Any, Any, Any]:
        """(values, frame indices, times) of the steps of one row."""
        spec, steps = self._spec, self._spec.sampling.steps
        foreign = self._source.read(piece.entry)
        shape = _clip_shape(foreign)
        if shape[1:] != spec.shape:
            raise UnreadableClip(
                "wrong_shape", f"its steps are {shape[1:]}, the store's {spec.shape}"
            )
        if shape[0] < 1:
            raise UnreadableClip("no_frames", "it has no steps")
        self._result.longest = max(self._result.longest, shape[0])
        start, stop = piece.start, shape[0] if piece.stop < 0 else piece.stop
        if stop - start > steps:
            if self._rules.long == "refuse":
                raise UnreadableClip("too_long", f"it has {shape[0]} steps, the store {steps}")
            stop = start + steps
        if foreign.dtype.kind not in "iufb" or (
            self._rules.dtype == "auto" and _stored_dtype(foreign.dtype) != spec.dtype
        ):
            raise UnreadableClip("wrong_dtype", f"it is {foreign.dtype}, the store {spec.dtype}")
        flat = len(foreign.shape) == 1
        read = foreign.read(0, foreign.shape[0])[None] if flat else foreign.read(start, stop)
        digest = told.get("digest")
        if digest is not None and not piece.start and stop == shape[0]:
            plain = np.ascontiguousarray(read)
            if google_crc32c.value(plain.reshape(-1).view(np.uint8)) != digest:
                raise UnreadableClip("unreadable", "its bytes are not those that were exported")
        with np.errstate(over="ignore"):
            values = read.astype(spec.dtype)
        if not np.isfinite(values).all():
            raise UnreadableClip("not_finite")
        at = told.get("frames", foreign.frames)
        when = told.get("times", foreign.times)
        if when is not None and (len(when) != shape[0] or not np.isfinite(when).all()):
            when = None
        if at is not None and (len(at) != shape[0] or (np.diff(at, prepend=-1) <= 0).any()):
            at = None
        count = np.arange(start, stop)
        # Untold, a step's number stands for its frame and its time.
        return (
            values,
            count if at is None else np.asarray(at)[start:stop],
            count if when is None else np.asarray(when, np.float32)[start:stop],
        )

    def _fail(self, piece: _Piece, error: UnreadableClip) -> None:
        self._result.failed[error.reason] += 1
        if len(self._result.failures) < 1000:
            self._result.failures.append(
                {"id": _row_id(piece), "reason": error.reason, "detail": error.detail}
            )


def _spec_of(source: Source, rules: Rules, name: str) -> Spec:
    """The store's spec, from the first array that can be read."""
    about = source.about
    first: Foreign | None = None
    for entry in source.entries:
        try:
            first = source.read(entry)
            break
        except UnreadableClip:
            continue
    if first is None:
        raise ConfigError(
            f"none of the {len(source.entries)} arrays can be read, e.g. {source.entries[0].file}: "
            "look at what wrote them"
        )
    rule, _, number = rules.sampling.partition("=")
    told: dict[str, Any] = {"rule": rule or IMPORTED}
    if rule and rule not in RULES:
        raise ConfigError(f"sampling {rule!r} is not known: use one of {', '.join(RULES)}")
    if number:
        try:
            told[rule] = float(number) if rule == "fps" else int(number)
        except ValueError:
            raise ConfigError(
                f"sampling is {rules.sampling!r}: write fps=2.5 or stride=4"
            ) from None
    dtype: Any = _stored_dtype(first.dtype) if rules.dtype == "auto" else rules.dtype
    shape = _clip_shape(first)[1:]
    if not dtype or not shape or min(shape) < 1 or np.prod(shape) > 1 << 28:
        raise ConfigError(
            f"the first array is {first.shape} {first.dtype}: name a folder of T × D numbers"
        )
    steps = rules.steps or int(about.get("steps", 40))
    return Spec(
        sampling=Sampling(steps=steps, **told), interpolation="none", size=0, backbone=IMPORTED,
        dtype=dtype, shape=shape, source=rules.source or about.get("source") or name,
    )  # fmt: skip


def _pieces(source: Source, steps: int, *, split: bool) -> Iterator[_Piece]:
    for entry in source.entries:
        length = 0
        if split:
            try:
                length = _clip_shape(source.read(entry))[0]
            except UnreadableClip:  # told where it is read
                length = 0
        if length <= steps:
            yield _Piece(entry)
            continue
        for start in range(0, length, steps):
            yield _Piece(entry, start, min(start + steps, length))


def _row_id(piece: _Piece) -> str:
    if piece.stop < 0:
        return piece.entry.id
    return f"{piece.entry.id}#steps={piece.start},{piece.stop}"


def _clip_shape(foreign: Foreign) -> tuple[int, ...]:
    return (1, *foreign.shape) if len(foreign.shape) == 1 else foreign.shape


def _stored_dtype(dtype: np.dtype[Any]) -> str:
    """What keeps the values: float32 for all but float16 and uint8 (float64 is rounded)."""
    if dtype.kind not in "iufb":
        return ""
    return str(dtype) if str(dtype) in ("float16", "uint8") else "float32"


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
