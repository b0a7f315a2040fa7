"""Clips with their steps in random order: what a head loses by it, the order of time told it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.heads.clips import Clips
from pipeline.heads.seeds import derived_seed
from pipeline.heads.source import Array, Mask, Names, Rows, SequencesLike, SequenceSource, texts


def with_steps_shuffled(clips: Clips, seed: int) -> Clips:
    """The clips with the real steps of each in an order of its own, in training and in testing alike.

    The order follows from the seed and the clip's id alone. Padding stays where it is.
    """
    source = ShuffledSource(clips.source, seed)
    views = tuple((with_steps_shuffled(view, seed), places) for view, places in clips.views)
    features, mask = clips.features, clips.mask
    if features is not None and mask is not None:
        features = shuffled_steps(features, mask, texts(clips.table, "video_id"), seed)
    return replace(clips, source=source, features=features, views=views)


def shuffled_steps(features: Array, mask: Mask, ids: Names, seed: int) -> Array:
    """A copy of features (clips, steps, …) with the steps that `mask` has in another order."""
    shuffled = features.copy()
    for number, name in enumerate(ids):
        real = np.flatnonzero(mask[number])
        rng = np.random.default_rng(derived_seed(seed, "steps", str(name)))
        shuffled[number, real] = features[number, rng.permutation(real)]
    return shuffled


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shuffled:
    """Some rows' sequences: features (n, steps, *shape), mask (n, steps), rows (n,)."""

    features: Array
    mask: Mask
    rows: Rows


class ShuffledSource:
    """A `SequenceSource` with shuffled steps. All else is that of `ordered`."""

    def __init__(self, ordered: SequenceSource, seed: int) -> None:
        self.ordered = ordered
        self._seed = seed
        self._ids = ordered.table()["video_id"].astype(str)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.ordered, name)

    @property
    def fingerprint(self) -> str:
        return self.ordered.fingerprint

    @property
    def spec(self) -> dict[str, Any]:
        return self.ordered.spec

    @property
    def classes(self) -> list[str]:
        return self.ordered.classes

    @property
    def steps(self) -> int:
        return self.ordered.steps

    @property
    def shape(self) -> tuple[int, ...]:
        return self.ordered.shape

    def table(self) -> pd.DataFrame:
        return self.ordered.table()

    def load(self, rows: Any = None) -> SequencesLike:
        return self._shuffled(self.ordered.load(rows))

    def batches(self, rows: Any, size: int) -> Iterator[SequencesLike]:
        return map(self._shuffled, self.ordered.batches(rows, size))

    def digests(self, rows: Any) -> npt.NDArray[np.uint32]:
        return self.ordered.digests(rows)

    def alone(self, number: int) -> ShuffledSource:
        """One stream of a join, its steps in the order that those of the join are in."""
        return ShuffledSource(self.ordered.alone(number), self._seed)  # type: ignore[attr-defined]

    def _shuffled(self, read: SequencesLike) -> SequencesLike:
        mask = np.asarray(read.mask, dtype=bool)
        ids = self._ids.loc[np.asarray(read.rows)].to_numpy(dtype=object)
        features = shuffled_steps(np.asarray(read.features), mask, ids, self._seed)
        return _Shuffled(features=features, mask=mask, rows=read.rows)
