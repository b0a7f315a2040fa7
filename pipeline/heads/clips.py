"""The clips that a training uses: in memory where they fit, else streamed from their source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.errors import ConfigError
from pipeline.heads.holdout import Holdout, holdouts_of
from pipeline.heads.order import WINDOW_BYTES, pieces, shuffled
from pipeline.heads.skeleton_source import SkeletonSource, read_as
from pipeline.heads.source import (
    READY,
    Array,
    Mask,
    Rows,
    SequenceSource,
    class_numbers,
    normalised,
    usable,
)

MEMORY_SHARE = 0.5
"""Sequences that take more than this share of the free memory are streamed."""
READ_SHARE = 0.125
"""A stream reads at most this share of the free memory at a time, and two such at once."""
READ_BYTES = 1 << 27
"""What a stream in the order of rows reads at a time."""

Batch = tuple[Array, Mask, Rows]
"""(features (n, steps, *shape), mask (n, steps) bool, positions (n,))."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Clips:
    """The usable clips of a source; rows are in ascending order.

    `features` (n, steps, *shape) as stored, or None where they are streamed; `mask` likewise;
    `labels` (n,) int64 index into `classes`; `rows` (n,) int64; `table` the source's columns of
    these rows; `digests` (n,) uint32; `views` other sources of the same clips, each with the
    positions (n,) of these clips in it; `holdouts` the named test sets that the source keeps;
    `stored` (n,) int64 where the source has them, if that is in other rows now than when a run
    began. Never written to, so several trainings may share it.
    """

    source: SequenceSource
    features: Array | None
    mask: Mask | None
    labels: Rows
    rows: Rows
    digests: npt.NDArray[np.uint32]
    table: pd.DataFrame
    classes: tuple[str, ...]
    fingerprint: str
    spec: Mapping[str, Any]
    steps: int
    shape: tuple[int, ...]
    left_out: Mapping[str, int]
    views: tuple[tuple[Clips, Rows], ...] = ()
    holdouts: tuple[Holdout, ...] = ()
    stored: Rows | None = None

    @property
    def stored_rows(self) -> Rows:
        """The row of each clip in the source, (n,) int64; `rows` unless a run was resumed."""
        return self.rows if self.stored is None else self.stored

    @property
    def skeleton(self) -> bool:
        """Whether `features` are skeletons, or hold some, made of the source's landmarks."""
        return bool(getattr(self.source, "skeleton", False))

    def as_stored(self) -> Clips:
        """The clips with the features that their store holds; those that are skeletons are streamed."""
        if not isinstance(self.source, SkeletonSource):
            return self
        stored = self.source.stored
        return replace(self, source=stored, features=None, mask=None, shape=tuple(stored.shape))

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return (
            f"Clips(features={(len(self), self.steps, *self.shape)}, "
            f"{'streamed' if self.features is None else 'in memory'}, views={1 + len(self.views)}, "
            f"classes={len(self.classes)}, spec={self.fingerprint[:12]}, "
            f"left_out={dict(self.left_out)})"
        )

    def positions(self, rows: Sequence[int] | Rows) -> Rows:
        """The positions of these row numbers in the arrays; raises `ConfigError` if one is absent."""
        wanted = np.asarray(rows, dtype=np.int64)
        at = np.minimum(np.searchsorted(self.rows, wanted), max(len(self.rows) - 1, 0))
        if len(wanted) and (not len(self.rows) or (self.rows[at] != wanted).any()):
            absent = [int(r) for r in np.setdiff1d(wanted, self.rows)[:5]]
            raise ConfigError(
                f"rows {absent} of the split hold no usable clip: make the split again"
            )
        return at.astype(np.int64)

    def batches(
        self, positions: Rows, size: int, *, order_seed: tuple[int, int] | None = None
    ) -> Iterator[Batch]:
        """`size` clips at a time, each once, in the order given or shuffled by (seed, epoch).

        The order is the same whether the sequences are in memory or streamed. Raises `ConfigError`
        where clips that are streamed can no longer be read as they were.
        """
        order = np.asarray(positions, dtype=np.int64)
        row_bytes = _row_bytes(self.steps, self.shape)
        most, ends = READ_BYTES // row_bytes, [len(order)]
        if order_seed is not None:
            most = WINDOW_BYTES // row_bytes
            order, ends = shuffled(order, self.rows, order_seed, window=most)
        if self.features is None or self.mask is None:
            most = min(most, int(READ_SHARE * free_bytes()) // row_bytes)
            yield from self._streamed(order, size, pieces(ends, size, most))
            return
        for start in range(0, len(order), size):
            at = order[start : start + size]
            yield self.features[at], self.mask[at], at

    def training_batches(
        self, positions: Rows, size: int, seed: int, epoch: int
    ) -> Iterator[Batch]:
        """Shuffled batches of one epoch; each clip from one of its views, drawn again each epoch."""
        rng = np.random.default_rng((seed, epoch, 2))
        for features, mask, at in self.batches(positions, size, order_seed=(seed, epoch)):
            if self.views:
                features, mask = features.copy(), mask.copy()
                drawn = rng.integers(0, 1 + len(self.views), len(at))
                for number, (view, places) in enumerate(self.views, start=1):
                    chosen = np.flatnonzero(drawn == number)
                    if len(chosen):
                        features[chosen], mask[chosen] = view.gather(places[at[chosen]])
            yield features, mask, at

    def gather(self, positions: Rows) -> tuple[Array, Mask]:
        """(features, mask) of these clips, in this order, repeats allowed."""
        if self.features is not None and self.mask is not None:
            return self.features[positions], self.mask[positions]
        features, mask, at = self._load(positions)
        return features[at], mask[at]

    def _streamed(self, order: Rows, size: int, spans: list[tuple[int, int]]) -> Iterator[Batch]:
        """Batches of `order`, one of its spans being read while the one before is used."""
        with ThreadPoolExecutor(1) as ahead:
            reading = [ahead.submit(self._load, order[slice(*span)]) for span in spans[:1]]
            for number, (start, stop) in enumerate(spans):
                features, mask, at = reading.pop().result()
                if number + 1 < len(spans):
                    reading = [ahead.submit(self._load, order[slice(*spans[number + 1])])]
                for first in range(start, stop, size):
                    batch = at[first - start : first - start + size]
                    yield features[batch], mask[batch], order[first : first + len(batch)]

    def _load(self, positions: Rows) -> tuple[Array, Mask, Rows]:
        """(features, mask, where in them each of `positions` is), read from the source."""
        distinct, back = np.unique(positions, return_inverse=True)
        wanted = self.stored_rows[distinct]
        read = self.source.load(wanted)
        got, mask = np.asarray(read.rows), np.asarray(read.mask, dtype=bool)
        lost = ~np.isin(wanted, got[mask.any(axis=1)])
        if lost.any():
            ids = self.table["video_id"].iloc[distinct[lost]].astype(str).tolist()
            raise ConfigError(
                f"{len(ids)} clips ({', '.join(ids[:3])}{', …' * (len(ids) > 3)}) can no longer be "
                f"read as they were when the training began: run `features`, and `verify` if no run "
                "has changed them, then train again"
            )
        order = np.argsort(got, kind="stable")
        return np.asarray(read.features), mask, order[np.searchsorted(got[order], wanted)][back]


def load_clips(
    source: SequenceSource,
    *,
    classes: Sequence[str] = (),
    stream: bool | None = None,
    skeleton: str = "auto",
) -> Clips:
    """All usable clips of a source, read once; or, where they would not fit, streamed.

    Pending, failed, gone and unlabelled rows, rows that the source leaves out as damaged, and
    clips without a single real step are counted in `left_out`. `classes` fixes the label
    vocabulary (default: the labels that occur, sorted). `stream` overrides the decision, which
    compares the sequences' bytes with half of the free memory. `skeleton`: whether poses are read as
    skeletons; see `skeleton_source.read_as`.

    Raises `ConfigError` where nothing is left or a ready row's features are not finite.
    """
    source = read_as(source, skeleton)
    table = normalised(source.table())
    good = usable(table)
    if not len(good):
        ready = int((table["status"] == READY).sum())
        raise ConfigError(
            f"none of the {ready} ready clips has a label: give labels by folder or manifest"
            if ready
            else f"none of the {len(table)} clips in the store is ready: run `features` first"
        )
    rows = np.sort(good.index.to_numpy(dtype=np.int64))
    features: Array | None = None
    mask: Mask | None = None
    if stream is None:
        row_bytes = _row_bytes(source.steps, source.shape)
        stream = len(rows) * row_bytes > MEMORY_SHARE * free_bytes()
    if stream:
        rows, lost = _usable_rows(source, rows, table)
    else:
        features, mask, rows, lost = _read(source, rows)
        _refuse_non_finite(features, mask, table, rows)
    digests = np.asarray(source.digests(rows), dtype=np.uint32)
    chosen = table.loc[rows].assign(digest=digests)
    names = tuple(classes) if classes else tuple(sorted(set(chosen["label"].astype(str))))
    return Clips(
        source=source,
        features=features,
        mask=mask,
        labels=class_numbers(chosen, names),
        rows=rows,
        digests=digests,
        table=chosen,
        classes=names,
        fingerprint=source.fingerprint,
        spec=dict(source.spec),
        steps=int(source.steps),
        shape=tuple(int(n) for n in source.shape),
        left_out=_left_out(table, good, lost) | dict(getattr(source, "left_out", {})),
        holdouts=holdouts_of(source),
    )


def _read(source: SequenceSource, rows: Rows) -> tuple[Array, Mask, Rows, dict[str, int]]:
    read = source.load(rows)
    got = np.asarray(read.rows, dtype=np.int64)
    features, mask = np.asarray(read.features), np.asarray(read.mask, dtype=bool)
    order = np.argsort(got, kind="stable")
    keep = order[mask[order].any(axis=1)]
    lost = {"damaged": len(rows) - len(got), "without_steps": len(got) - len(keep)}
    if not np.array_equal(keep, np.arange(len(got))):
        features, mask, got = features[keep], mask[keep], got[keep]
    return features, mask, got, lost


def _usable_rows(
    source: SequenceSource, rows: Rows, table: pd.DataFrame
) -> tuple[Rows, dict[str, int]]:
    """The rows that can be used, each read once: the same as of a source that is loaded."""
    rows_by_batch: list[Rows] = []
    seen = 0
    for read in source.batches(rows, 64):
        mask, numbers = np.asarray(read.mask, dtype=bool), np.asarray(read.rows, dtype=np.int64)
        _refuse_non_finite(np.asarray(read.features), mask, table, numbers)
        seen += len(numbers)
        rows_by_batch.append(numbers[mask.any(axis=1)])
    usable_rows = np.sort(np.concatenate([rows[:0], *rows_by_batch]))
    lost = {"damaged": len(rows) - seen, "without_steps": seen - len(usable_rows)}
    return usable_rows, lost


def _row_bytes(steps: int, shape: tuple[int, ...]) -> int:
    item = 1 if len(shape) == 3 else 4
    return int(steps * np.prod(shape) * item)


def free_bytes() -> int:
    """The memory that is available now."""
    import psutil

    return int(psutil.virtual_memory().available)


def _left_out(table: pd.DataFrame, good: pd.DataFrame, lost: dict[str, int]) -> dict[str, int]:
    status = table["status"].to_numpy()
    states = {"pending": 0, "failed": 2, "gone": 3, "unlabelled": READY}
    counts = {name: int((status == number).sum()) for name, number in states.items()} | lost
    counts["unlabelled"] -= len(good)
    return {name: count for name, count in counts.items() if count}


def _refuse_non_finite(features: Array, mask: Mask, table: pd.DataFrame, rows: Rows) -> None:
    if features.dtype.kind != "f":
        return
    axes = tuple(range(2, features.ndim))
    for start in range(0, len(features), 256):
        part = slice(start, start + 256)
        finite = np.isfinite(features[part]).all(axis=axes) | ~mask[part]
        bad = np.flatnonzero(~finite.all(axis=1))
        if len(bad):
            name = table.loc[rows[start + int(bad[0])], "video_id"]
            raise ConfigError(
                f"the features of {name} are not finite: run `verify --repair`, then `features`"
            )
