"""A source of poses read as skeletons: what a training sees in place of the stored landmarks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.errors import ConfigError
from pipeline.heads.skeleton import CHANNELS, LANDMARKS, skeletons
from pipeline.heads.source import Array, Mask, Rows, SequencesLike, SequenceSource


def read_as(source: SequenceSource, skeleton: str) -> SequenceSource:
    """The source as heads are to read it.

    skeleton: "yes", "no", or "auto" for skeletons if the source holds poses. Raises `ConfigError` for
    "yes" if it does not.
    """
    if getattr(source, "streams", ()):
        return source  # joined of sources that are read as heads are to read them
    poses = source.spec.get("backbone") == "pose" and tuple(source.shape) == LANDMARKS
    if skeleton == "yes" and not poses:
        raise ConfigError(
            f"skeleton is yes, and {getattr(source, 'url', 'the store')} holds features of "
            f"{source.spec.get('backbone')}: leave it out, or train on a store of backbone pose"
        )
    return SkeletonSource(source) if poses and skeleton != "no" else source


@dataclass(frozen=True, slots=True, kw_only=True)
class Skeletons:
    """Some rows' skeletons: features (n, steps, 104) float32, mask (n, steps), rows (n,)."""

    features: Array
    mask: Mask
    rows: Rows

    @classmethod
    def of(cls, read: SequencesLike) -> Skeletons:
        """The skeletons of landmarks."""
        mask = np.asarray(read.mask, dtype=bool)
        return cls(features=skeletons(read.features, mask), mask=mask, rows=read.rows)


class SkeletonSource:
    """A `SequenceSource` of skeletons. Table, digests, fingerprint and all else are those of `stored`."""

    skeleton = True

    def __init__(self, stored: SequenceSource) -> None:
        self.stored = stored

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stored, name)

    @property
    def fingerprint(self) -> str:
        return self.stored.fingerprint

    @property
    def spec(self) -> dict[str, Any]:
        return self.stored.spec

    @property
    def classes(self) -> list[str]:
        return self.stored.classes

    @property
    def steps(self) -> int:
        return self.stored.steps

    @property
    def shape(self) -> tuple[int, ...]:
        return (CHANNELS,)

    def table(self) -> pd.DataFrame:
        return self.stored.table()

    def digests(self, rows: Any) -> npt.NDArray[np.uint32]:
        return self.stored.digests(rows)

    def load(self, rows: Any = None) -> Skeletons:
        return Skeletons.of(self.stored.load(rows))

    def batches(self, rows: Any = None, size: int = 32, **order: Any) -> Iterator[Skeletons]:
        """order: the keywords `shuffle`, `seed` and `epoch` of the stored source."""
        return map(Skeletons.of, self.stored.batches(rows, size, **order))
