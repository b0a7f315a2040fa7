"""Where a training's sequences come from: the protocol, and the clips that a training uses.

The store's reader satisfies `SequenceSource` without knowing of it; so does anything in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.errors import ConfigError

READY = 1
"""The status of a row whose features may be used (format version 1)."""

Rows = npt.NDArray[np.int64]


class SequencesLike(Protocol):
    """Some rows' sequences: features (n, steps, *shape), mask (n, steps) bool, rows (n,) int64."""

    @property
    def features(self) -> npt.NDArray[Any]: ...
    @property
    def mask(self) -> npt.NDArray[np.bool_]: ...
    @property
    def rows(self) -> npt.NDArray[np.int64]: ...


@runtime_checkable
class SequenceSource(Protocol):
    """Anything that serves masked sequences with a table of their clips.

    `table()` is indexed by row number and has at least `video_id`, `label`, `split`, `group` and
    `status`. `load` may leave rows out (damaged ones): the caller goes by `Sequences.rows`.
    """

    @property
    def fingerprint(self) -> str: ...
    @property
    def spec(self) -> dict[str, Any]: ...
    @property
    def classes(self) -> list[str]: ...
    @property
    def steps(self) -> int: ...
    @property
    def shape(self) -> tuple[int, ...]: ...

    def table(self) -> pd.DataFrame: ...
    def load(self, rows: Any = None) -> SequencesLike: ...
    def batches(self, rows: Any = None, size: int = 32, **options: Any) -> Iterator[Any]: ...
    def digests(self, rows: Any) -> npt.NDArray[np.uint32]: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Clips:
    """Loaded clips with what a training asks of them; rows are in ascending order.

    `features` (n, steps, *shape) as stored, `mask` (n, steps) bool, `labels` (n,) int64 index
    into `classes`, `rows` (n,) int64, `table` the source's columns of these rows, `digests`
    (n,) uint32. Several trainings may share one `Clips`: nothing writes to it.
    """

    features: npt.NDArray[Any]
    mask: npt.NDArray[np.bool_]
    labels: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    digests: npt.NDArray[np.uint32]
    table: pd.DataFrame
    classes: tuple[str, ...]
    fingerprint: str
    spec: Mapping[str, Any]
    left_out: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.rows)

    def batches(
        self, positions: Rows, size: int, *, order_seed: tuple[int, int] | None = None
    ) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[np.bool_], Rows]]:
        """(features, mask, positions) of `size` clips at a time, each clip once.

        In the order given, or shuffled by `order_seed` = (seed, epoch).
        """
        order = np.asarray(positions, dtype=np.int64)
        if order_seed is not None:
            order = np.random.default_rng(order_seed).permutation(order)
        for start in range(0, len(order), size):
            at = order[start : start + size]
            yield self.features[at], self.mask[at], at

    def __repr__(self) -> str:
        return (
            f"Clips(features={self.features.shape} {self.features.dtype}, "
            f"mask={self.mask.shape}, classes={len(self.classes)}, "
            f"spec={self.fingerprint[:12]}, left_out={dict(self.left_out)})"
        )

    @property
    def steps(self) -> int:
        """The length of every sequence."""
        return int(self.features.shape[1])

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one step."""
        return tuple(int(n) for n in self.features.shape[2:])

    def positions(self, rows: Sequence[int] | Rows) -> Rows:
        """Where these row numbers stand in the arrays. Raises `ConfigError` on one that is absent."""
        wanted = np.asarray(rows, dtype=np.int64)
        at = np.minimum(np.searchsorted(self.rows, wanted), max(len(self.rows) - 1, 0))
        if len(wanted) and (not len(self.rows) or (self.rows[at] != wanted).any()):
            absent = [int(r) for r in np.setdiff1d(wanted, self.rows)[:5]]
            raise ConfigError(
                f"rows {absent} of the split hold no usable clip: make the split again"
            )
        return at.astype(np.int64)


def usable(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that a head can learn from: ready, and with a label."""
    return table[(table["status"] == READY) & (table["label"].astype(str) != "")]


def load_clips(source: SequenceSource, *, classes: Sequence[str] = ()) -> Clips:
    """All usable clips of a source, read once.

    Pending, failed, gone and unlabelled rows, rows that the source leaves out as damaged, and
    clips without a single real step are counted in `left_out`. `classes` fixes the label
    vocabulary (default: the labels that occur, sorted).

    Raises `ConfigError` where nothing is left or a ready row's features are not finite.
    """
    table = source.table()
    good = usable(table)
    if not len(good):
        raise ConfigError(_nothing_usable(table))
    read = source.load(good.index.to_numpy(dtype=np.int64))
    rows = np.asarray(read.rows, dtype=np.int64)
    order = np.argsort(rows, kind="stable")
    features, mask = np.asarray(read.features), np.asarray(read.mask, dtype=bool)
    has_step = mask[order].any(axis=1)
    keep = order[has_step]
    if not np.array_equal(keep, np.arange(len(rows))):
        features, mask, rows = features[keep], mask[keep], rows[keep]
    _refuse_non_finite(features, mask, table, rows)
    chosen = table.loc[rows]
    names = tuple(classes) if classes else tuple(sorted(set(chosen["label"].astype(str))))
    index = {name: i for i, name in enumerate(names)}
    strange = sorted(set(chosen["label"].astype(str)) - set(names))
    if strange:
        raise ConfigError(
            f"the label {strange[0]!r} is not among the {len(names)} classes: name it in classes"
        )
    left_out = _left_out(table, good, len(order), int(has_step.sum()))
    return Clips(
        features=features,
        mask=mask,
        labels=np.array([index[name] for name in chosen["label"].astype(str)], dtype=np.int64),
        rows=rows,
        digests=np.asarray(source.digests(rows), dtype=np.uint32),
        table=chosen,
        classes=names,
        fingerprint=source.fingerprint,
        spec=dict(source.spec),
        left_out=left_out,
    )


def _left_out(table: pd.DataFrame, good: pd.DataFrame, read: int, kept: int) -> dict[str, int]:
    status = table["status"].to_numpy()
    counts = {
        "pending": int((status == 0).sum()),
        "failed": int((status == 2).sum()),
        "gone": int((status == 3).sum()),
        "unlabelled": int((status == READY).sum()) - len(good),
        "damaged": len(good) - read,
        "without_steps": read - kept,
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
