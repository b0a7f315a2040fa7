"""What a report shows: plain frames, arrays and JPEG bytes, gathered by the caller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClipCard:
    """One clip with its pictures (JPEG files, oldest first; none where the store has none)."""

    video_id: str
    label: str
    note: str = ""
    pictures: Sequence[bytes] = ()

    def __repr__(self) -> str:
        return f"ClipCard({self.video_id}, {self.label}, {len(self.pictures)} pictures)"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FeatureMap:
    """All ready clips in the plane: points (n, 2), and for some of them a picture to hover on.

    pictures: position → JPEG
    shares: of the variance, one per axis
    """

    points: npt.NDArray[np.float32]
    video_ids: Sequence[str]
    labels: Sequence[str]
    shares: Sequence[float]
    pictures: Mapping[int, bytes] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"FeatureMap(points={self.points.shape}, pictures={len(self.pictures)})"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pair:
    """Two near-identical clips. suspect: why that matters ("" if it does not)."""

    first: ClipCard
    second: ClipCard
    similarity: float
    suspect: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunView:
    """One trained head: its figures, and the files of its folder as frames.

    metrics: as in metrics.json
    history: one line per epoch
    confusion: true label × predicted label
    """

    name: str
    metrics: Mapping[str, Any]
    history: pd.DataFrame
    confusion: pd.DataFrame
    mistakes: Sequence[ClipCard] = ()

    def __repr__(self) -> str:
        return f"RunView({self.name}, {len(self.history)} epochs, {len(self.mistakes)} mistakes)"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Contents:
    """A store and the runs that were trained from it.

    name, made: title and date of the page
    facts: (what, value) lines about the store
    table: one row per clip, as `Store.table()` returns it
    remedies: reason → (meaning, remedy)
    boards: one leaderboard per test set
    over_seeds: head and lines of a table of trainings that differ in their seed alone
    pairs_note, map_note: what was compared
    warnings: sentences at the top of the page
    """

    name: str
    made: str
    facts: Sequence[tuple[str, str]]
    table: pd.DataFrame
    remedies: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    wall: Sequence[ClipCard] = ()
    failed: Sequence[ClipCard] = ()
    feature_map: FeatureMap | None = None
    map_note: str = ""
    pairs: Sequence[Pair] = ()
    pairs_note: str = ""
    boards: Sequence[pd.DataFrame] = ()
    over_seeds: tuple[Sequence[str], Sequence[Sequence[Any]]] = ((), ())
    runs: Sequence[RunView] = ()
    warnings: Sequence[str] = ()

    def __repr__(self) -> str:
        return f"Contents({self.name}: {len(self.table)} rows, {len(self.runs)} runs)"
