"""The clips that a training uses: in memory where they fit, else streamed from their source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.errors import ConfigError
from pipeline.heads.holdout import Holdout, holdouts_of
from pipeline.heads.source import READY, Rows, SequenceSource, normalised, usable

MEMORY_SHARE = 0.5
"""Sequences that take more than this share of the free memory are streamed."""

Batch = tuple[npt.NDArray[Any], npt.NDArray[np.bool_], Rows]
"""(features (n, steps, *shape), mask (n, steps) bool, positions (n,))."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Clips:
    """Usable clips with what a training asks of them; rows are in ascending order.

    `features` (n, steps, *shape) as stored, or None where they are streamed; `mask` likewise;
    `labels` (n,) int64 index into `classes`; `rows` (n,) int64; `table` the source's columns of
    these rows; `digests` (n,) uint32; `views` other sources of the same clips, each with the
    positions (n,) of these clips in it; `holdouts` the named test sets that the source keeps;
    `stored` (n,) int64 where the source has them, if that is in other rows now than when a run
    began. Several trainings may share one: nothing writes to it.
    """

    source: SequenceSource
    features: npt.NDArray[Any] | None
    mask: npt.NDArray[np.bool_] | None
    labels: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    digests: npt.NDArray[np.uint32]
    table: pd.DataFrame
    classes: tuple[str, ...]
    fingerprint: str
    spec: Mapping[str, Any]
    steps: int
    shape: tuple[int, ...]
    left_out: Mapping[str, int]
    views: tuple[tuple[Clips, Rows], ...] = field(default=())
    holdouts: tuple[Holdout, ...] = field(default=())
    stored: Rows | None = None

    @property
    def stored_rows(self) -> Rows:
        """The row of each clip in the source, (n,) int64; `rows` unless a run was resumed."""
        return self.rows if self.stored is None else self.stored

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
        """Where these row numbers stand in the arrays; `ConfigError` on one that is absent."""
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
        """`size` clips at a time, each once, in the order given or shuffled by (seed, epoch)."""
        order = np.asarray(positions, dtype=np.int64)
        if self.features is None or self.mask is None:
            yield from self._streamed(order, size, order_seed)
            return
        if order_seed is not None:
            order = np.random.default_rng(order_seed).permutation(order)
        for start in range(0, len(order), size):
            at = order[start : start + size]
            yield self.features[at], self.mask[at], at

    def training_batches(
        self, positions: Rows, size: int, seed: int, epoch: int
    ) -> Iterator[Batch]:
        """Shuffled batches of one epoch; each clip by one of its views, drawn anew each epoch."""
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

    def gather(self, positions: Rows) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """(features, mask) of these clips, in this order, repeats allowed."""
        if self.features is not None and self.mask is not None:
            return self.features[positions], self.mask[positions]
        distinct, back = np.unique(positions, return_inverse=True)
        wanted = self.stored_rows[distinct]
        read = self.source.load(wanted)
        if len(read.rows) != len(distinct):
            lost = sorted(set(wanted.tolist()) - set(np.asarray(read.rows).tolist()))
            raise ConfigError(f"rows {lost[:5]} were damaged while training: verify the store")
        order = np.argsort(np.asarray(read.rows), kind="stable")
        order = order[np.searchsorted(np.asarray(read.rows)[order], wanted)][back]
        return np.asarray(read.features)[order], np.asarray(read.mask, dtype=bool)[order]

    def _streamed(
        self, order: Rows, size: int, order_seed: tuple[int, int] | None
    ) -> Iterator[Batch]:
        options: dict[str, Any] = {}
        if order_seed is not None:
            options = {"shuffle": True, "seed": order_seed[0], "epoch": order_seed[1]}
        for read in self.source.batches(self.rows[order], size, **options):
            features, mask = np.asarray(read.features), np.asarray(read.mask, dtype=bool)
            real = mask.any(axis=1)
            if real.any():
                at = self.positions(np.asarray(read.rows)[real])
                _refuse_non_finite(features[real], mask[real], self.table, self.rows[at])
                yield features[real], mask[real], at


def load_clips(
    source: SequenceSource, *, classes: Sequence[str] = (), stream: bool | None = None
) -> Clips:
    """All usable clips of a source, read once; or, where they would not fit, streamed.

    Pending, failed, gone and unlabelled rows, rows that the source leaves out as damaged, and
    clips without a single real step are counted in `left_out`. `classes` fixes the label
    vocabulary (default: the labels that occur, sorted). `stream` overrides the decision, which
    compares the sequences' bytes with half of the free memory.

    Raises `ConfigError` where nothing is left or a ready row's features are not finite.
    """
    table = normalised(source.table())
    good = usable(table)
    if not len(good):
        raise ConfigError(_nothing_usable(table))
    rows = np.sort(good.index.to_numpy(dtype=np.int64))
    features: npt.NDArray[Any] | None = None
    mask: npt.NDArray[np.bool_] | None = None
    lost = {"damaged": 0, "without_steps": 0}
    if stream is None:
        stream = _bytes(source, rows) > MEMORY_SHARE * _free_bytes()
    if not stream:
        features, mask, rows, lost = _read(source, rows)
        _refuse_non_finite(features, mask, table, rows)
    digests = np.asarray(source.digests(rows), dtype=np.uint32)
    chosen = table.loc[rows].assign(digest=digests)
    names = tuple(classes) if classes else tuple(sorted(set(chosen["label"].astype(str))))
    index = {name: i for i, name in enumerate(names)}
    strange = sorted(set(chosen["label"].astype(str)) - set(names))
    if strange:
        raise ConfigError(
            f"the label {strange[0]!r} is not among the {len(names)} classes: name it in classes"
        )
    return Clips(
        source=source,
        features=features,
        mask=mask,
        labels=np.array([index[name] for name in chosen["label"].astype(str)], dtype=np.int64),
        rows=rows,
        digests=digests,
        table=chosen,
        classes=names,
        fingerprint=source.fingerprint,
        spec=dict(source.spec),
        steps=int(source.steps),
        shape=tuple(int(n) for n in source.shape),
        left_out=_left_out(table, good, lost),
        holdouts=holdouts_of(source),
    )


def _read(
    source: SequenceSource, rows: Rows
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_], Rows, dict[str, int]]:
    read = source.load(rows)
    got = np.asarray(read.rows, dtype=np.int64)
    features, mask = np.asarray(read.features), np.asarray(read.mask, dtype=bool)
    order = np.argsort(got, kind="stable")
    keep = order[mask[order].any(axis=1)]
    lost = {"damaged": len(rows) - len(got), "without_steps": len(got) - len(keep)}
    if not np.array_equal(keep, np.arange(len(got))):
        features, mask, got = features[keep], mask[keep], got[keep]
    return features, mask, got, lost


def _bytes(source: SequenceSource, rows: Rows) -> int:
    item = 1 if len(source.shape) == 3 else 4
    return int(len(rows) * source.steps * np.prod(source.shape) * item)


def _free_bytes() -> int:
    import psutil

    return int(psutil.virtual_memory().available)


def _left_out(table: pd.DataFrame, good: pd.DataFrame, lost: Mapping[str, int]) -> dict[str, int]:
    status = table["status"].to_numpy()
    counts = {
        "pending": int((status == 0).sum()),
        "failed": int((status == 2).sum()),
        "gone": int((status == 3).sum()),
        "unlabelled": int((status == READY).sum()) - len(good),
        **lost,
    }
    return {name: count for name, count in counts.items() if count}


def _nothing_usable(table: pd.DataFrame) -> str:
    ready = int((table["status"] == READY).sum()) if len(table) else 0
    if ready:
        return f"none of the {ready} ready clips has a label: give labels by folder or manifest"
    return f"none of the {len(table)} clips in the store is ready: run `features` first"


def _refuse_non_finite(
    features: npt.NDArray[Any], mask: npt.NDArray[np.bool_], table: pd.DataFrame, rows: Rows
) -> None:
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
