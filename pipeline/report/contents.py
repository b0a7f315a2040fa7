"""What a report shows: plain frames, arrays and JPEG bytes, gathered by the caller; and their grid."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.drawing import new_figure, save_figure


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
class ConfusedPair:
    """Test clips of one class (`label`) that a run called `predicted`: how many, and some of them."""

    label: str
    predicted: str
    clips: int
    shown: Sequence[ClipCard] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Strip:
    """A long video as a strip of time: what happens when, and what a head says of it.

    truth, prediction: (start_s, end_s, label), by their starts
    """

    video_id: str
    duration_s: float
    truth: Sequence[tuple[float, float, str]]
    prediction: Sequence[tuple[float, float, str]]

    def __repr__(self) -> str:
        return (
            f"Strip({self.video_id}, {self.duration_s:.1f} s, {len(self.truth)} true segments, "
            f"{len(self.prediction)} predicted)"
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunView:
    """One trained head: its figures, and the files of its folder as frames.

    metrics: as in metrics.json
    history: one line per epoch
    confusion: true label × predicted label; None of a head of several labels at a time
    strips: test videos of a head that labels every step · classes: its labels, in order
    """

    name: str
    metrics: Mapping[str, Any]
    history: pd.DataFrame
    confusion: pd.DataFrame | None
    mistakes: Sequence[ClipCard] = ()
    confused: Sequence[ConfusedPair] = ()
    strips: Sequence[Strip] = ()
    classes: Sequence[str] = ()

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
    leaks: for each board the leak check of its clips in a sentence, or ""
    over_seeds: head and lines of a table of trainings that differ in their seed alone
    learning: head and lines of a table of learning curves
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
    leaks: Sequence[str] = ()
    over_seeds: tuple[Sequence[str], Sequence[Sequence[Any]]] = ((), ())
    learning: tuple[Sequence[str], Sequence[Sequence[Any]]] = ((), ())
    runs: Sequence[RunView] = ()
    warnings: Sequence[str] = ()

    def __repr__(self) -> str:
        return f"Contents({self.name}: {len(self.table)} rows, {len(self.runs)} runs)"


def data_url(jpeg: bytes) -> str:
    """A JPEG file as a `data:` URL."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")


def middle(pictures: Sequence[bytes]) -> bytes:
    """The middle picture of a clip, or b"" if there is none."""
    return pictures[len(pictures) // 2] if pictures else b""


def save_grid(cards: Sequence[ClipCard], path: Path, *, title: str = "", columns: int = 4) -> None:
    """Draw the cards as one PNG: a strip of each clip's previews, with its label and note."""
    import matplotlib.image

    columns = max(1, min(columns, len(cards)))
    rows = -(-max(1, len(cards)) // columns)
    figure = new_figure(3.6 * columns, 1.9 * rows + 0.5)
    figure.suptitle(title, fontsize=11)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, card in zip(axes.flat, cards, strict=False):
        pictures = [
            matplotlib.image.imread(io.BytesIO(data), format="jpg") for data in card.pictures
        ]
        for place, picture in enumerate(pictures):
            axis.imshow(picture, extent=(place, place + 0.97, 0, 0.97))
        if not pictures:
            axis.text(1.5, 0.5, "no picture", ha="center", va="center", color="0.4")
        axis.set_xlim(0, 3)
        axis.set_ylim(0, 1)
        axis.set_aspect("equal")
        words = " · ".join(word for word in (card.label, card.note) if word)
        name = card.video_id if len(card.video_id) <= 42 else f"…{card.video_id[-41:]}"
        axis.set_title(f"{words}\n{name}", fontsize=8)
    save_figure(figure, path, dpi=110)
