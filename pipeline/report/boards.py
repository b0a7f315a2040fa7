"""Leaderboards as tables of words: heads of clips by top-1, heads of steps by the published figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pipeline.heads.steps.measures import STEP_FIGURES

_OF_CLIPS = {
    "top1": "top-1",
    "spread": "± over folds",
    "top5": "top-5",
    "macro_f1": "macro F1",
    "validation_top1": "validation top-1",
    "frame_average": "frame average",
}
_OF_STEPS = {
    **STEP_FIGURES,
    "spread": "± over folds",
    "validation_top1": "validation frame accuracy",
}
_OF_BOTH = {"parameters": "parameters", "train_seconds": "training, s"}


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardLines:
    """A leaderboard's table.

    head, rows: of the table, columns with nothing in them left out
    tested: on what, with its number · what: the figure that ranks · words: for who cannot see the chart
    """

    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    tested: str
    what: str
    words: str


def board_of(board: pd.DataFrame) -> BoardLines:
    """The table of a leaderboard, the best run first; as `compare.leaderboards` makes it."""
    per_step = "frame_accuracy" in board and not board["frame_accuracy"].isna().all()
    noun, what = ("video", "frame accuracy") if per_step else ("clip", "top-1")
    columns = {
        "run": "run",
        "head": "head",
        **(_OF_STEPS if per_step else _OF_CLIPS),
        **_OF_BOTH,
        "clips": f"test {noun}s",
    }
    names = [name for name in columns if name in board and not board[name].isna().all()]
    best, count = board.iloc[0], int(board.iloc[0]["clips"])
    runs = f"{len(board)} run{'s' * (len(board) != 1)}"
    share = f"{best['top1']:.1%} of its test {'steps' if per_step else 'clips'}"
    return BoardLines(
        head=[columns[name] for name in names],
        rows=[[_cell(name, row[name]) for name in names] for _, row in board.iterrows()],
        tested=f"{count:,} {noun}{'s' * (count != 1)}",
        what=f"{what} on test {noun}s",
        words=f"{runs}; the best is {best['run']} with {share}.",
    )


def _cell(name: str, value: Any) -> Any:
    if isinstance(value, str):
        return value
    if pd.isna(value):
        return "–"
    if name in ("parameters", "clips"):
        return f"{int(value):,}"
    return f"{value:.1f}" if name == "train_seconds" else f"{value:.3f}"
