"""One HTML page about what is in a store and how good its heads are: no network, one file."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import plotly.offline
from markupsafe import Markup

from pipeline.heads.measures import LEAST_GROUPS
from pipeline.heads.spans import whole_files
from pipeline.heads.steps.measures import STEP_FIGURES
from pipeline.plain import json_text
from pipeline.report import figures
from pipeline.report.boards import board_of
from pipeline.report.contents import Contents, RunView, data_url
from pipeline.report.strips import drawings


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chart:
    """A place for a figure in the page: drawn when it comes into view."""

    id: str
    words: str
    height: int


class _Figures:
    """The page's figures by id, embedded once as JSON."""

    def __init__(self) -> None:
        self._figures: dict[str, Any] = {}

    def add(self, figure: Any, words: str) -> _Chart:
        """Keep a figure; `words`: a sentence for who cannot see it."""
        name = f"f{len(self._figures)}"
        self._figures[name] = json.loads(figure.to_json())
        return _Chart(id=name, words=words, height=int(figure.layout.height))

    def json(self) -> Markup:
        return _embedded(self._figures)


def render(contents: Contents) -> str:
    """The whole page as text. It holds Plotly's script once (4.8 MB) and all pictures."""
    charts = _Figures()
    feature_map = contents.feature_map
    hovers = {
        str(place): base64.b64encode(data).decode("ascii")
        for place, data in (feature_map.pictures.items() if feature_map else ())
    }
    loader = jinja2.PackageLoader("pipeline.report")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    table = contents.table
    values = {
        "contents": contents,
        "sections": _sections(contents),
        "pictures": lambda card: [data_url(data) for data in card.pictures],
        "pictured": any(card.pictures for card in contents.wall),
        "tiles": _tiles(table),
        "classes": charts.add(figures.class_chart(table), _class_words(table))
        if (table["label"] != "").any()
        else None,
        "class_rows": _class_rows(table),
        "spreads": _spreads(table, charts),
        "reasons": _reasons(contents),
        "map": charts.add(
            figures.map_chart(feature_map),
            f"A map of {len(feature_map.points)} clips by their mean features.",
        )
        if feature_map is not None
        else None,
        "pair_groups": _pair_groups(contents),
        "boards": [
            _board(board, number, charts)
            | {"leaks": contents.leaks[number] if number < len(contents.leaks) else ""}
            for number, board in enumerate(contents.boards)
        ],
        "runs": [_run(run, charts) for run in contents.runs],
        "hovers": _embedded(hovers),
        # These are ours or Plotly's, never a user's text.
        "style": Markup(loader.get_source(environment, "page.css")[0]),
        "script": Markup(loader.get_source(environment, "page.js")[0]),
        "plotly": Markup(plotly.offline.get_plotlyjs().replace("</script", "<\\/script")),
    }
    return environment.get_template("page.html").render(values | {"figures": charts.json()})


def _embedded(values: Any) -> Markup:
    """JSON inside a script element: nothing in it may end the element."""
    return Markup(json_text(values).replace("<", "\\u003c"))


def _sections(contents: Contents) -> list[tuple[str, str]]:
    wanted = [
        ("store", "Store", True),
        ("wall", "Clips", bool(contents.wall)),
        ("failed", "Failed", bool(contents.failed)),
        ("map", "Map", contents.feature_map is not None),
        ("pairs", "Look-alikes", True),
        ("runs", "Heads", bool(contents.boards)),
    ]
    return [(anchor, title) for anchor, title, there in wanted if there]


def _tiles(table: pd.DataFrame) -> list[tuple[str, str]]:
    states = table["state"].value_counts()
    ready = table[table["state"] == "ready"]
    seconds = _durations(ready).sum()
    tiles = [
        (f"{int(states.get(state, 0)):,}", state)
        for state in ("ready", "failed", "pending", "gone")
        if state == "ready" or states.get(state, 0)
    ]
    labels, groups = set(ready["label"]) - {""}, set(ready["group"]) - {""}
    files = whole_files(ready)
    if (files != ready["video_id"].to_numpy()).any():  # some are parts of files
        tiles.append((f"{len(set(files)):,}", "files"))
    if labels:
        tiles.append((f"{len(labels):,}", "classes"))
    if groups:
        tiles.append((f"{len(groups):,}", "groups"))
    if np.isfinite(seconds) and seconds > 0:
        words = f"{seconds / 3600:,.1f} h" if seconds >= 5400 else f"{seconds / 60:,.1f} min"
        tiles.append((words, "of video"))
    size = ready.loc[~pd.Series(files, ready.index).duplicated(), "size_bytes"].clip(lower=0).sum()
    if size:
        words = f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.1f} MiB"
        tiles.append((words, "of clips"))
    return tiles


def _durations(table: pd.DataFrame) -> pd.Series:
    fps = table["fps"].astype(float)
    return (table["frames_decoded"] / fps.where(fps > 0)).where(table["frames_decoded"] > 0)


def _class_words(table: pd.DataFrame) -> str:
    counts = table.loc[table["label"] != "", "label"].value_counts()
    return (
        f"Clips per class: {len(counts)} classes, from {counts.iloc[-1]} ({counts.index[-1]}) "
        f"to {counts.iloc[0]} clips ({counts.index[0]})."
    )


def _class_rows(table: pd.DataFrame) -> list[tuple[str, int, int, int]]:
    rows = []
    for label, part in table.groupby("label", observed=True, sort=True):
        states = part["state"].value_counts()
        ready, failed = int(states.get("ready", 0)), int(states.get("failed", 0))
        rows.append((str(label) or "(no label)", len(part), ready, failed))
    return rows


def _spreads(table: pd.DataFrame, charts: _Figures) -> list[tuple[str, _Chart]]:
    ready = table[table["state"] == "ready"]
    numbers = {
        "Duration": (_durations(ready), "seconds"),
        "Frames": (ready["frames_decoded"].where(ready["frames_decoded"] > 0), "frames decoded"),
        "Frame rate": (ready["fps"].where(ready["fps"] > 0), "frames per second"),
        "Picture size": (ready["height"].where(ready["height"] > 0), "height in pixels"),
    }
    shown = []
    for title, (values, unit) in numbers.items():
        known = values.dropna()
        if len(known):
            words = (
                f"{title} of the clips: from {known.min():.4g} to {known.max():.4g} {unit}, "
                f"the middle one {known.median():.4g}."
            )
            shown.append((title, charts.add(figures.histogram(known, unit=unit), words)))
    return shown


def _reasons(contents: Contents) -> list[tuple[str, int, str, str]]:
    counts = contents.table.loc[contents.table["reason"] != "", "reason"].value_counts()
    return [
        (str(reason), int(count), *contents.remedies.get(str(reason), ("", "")))
        for reason, count in counts.items()
    ]


def _pair_groups(contents: Contents) -> list[tuple[str, list[Any]]]:
    suspects = [pair for pair in contents.pairs if pair.suspect]
    others = [pair for pair in contents.pairs if not pair.suspect]
    groups = [("Suspects", suspects), ("Others that look alike", others)]
    return [(title, pairs) for title, pairs in groups if pairs]


def _board(board: pd.DataFrame, number: int, charts: _Figures) -> dict[str, Any]:
    lines = board_of(board)
    return {
        "title": f"Leaderboard{f' {number + 1}' if number else ''}: tested on the same {lines.tested}",
        "figure": charts.add(figures.board_chart(board, lines.what), lines.words),
        "head": lines.head,
        "rows": lines.rows,
    }


def _run(run: RunView, charts: _Figures) -> dict[str, Any]:
    test = run.metrics["test"]
    strips, colours = drawings(run.strips, run.classes)
    steps = run.metrics.get("labels") == "steps"
    words = _step_words(test) if steps else _clip_words(run)
    curves = None
    if (run.history["epoch"] > 1).any():  # a head that is solved for has none
        curves = charts.add(
            figures.curves_chart(run.history),
            f"Accuracy of {run.name} over {len(run.history)} epochs, in training and validation.",
        )
    return {
        "name": run.name,
        "words": words,
        "curves": curves,
        "confusion": None
        if run.confusion is None
        else charts.add(
            figures.confusion_chart(run.confusion),
            f"Which classes {run.name} confuses on its test clips: {_worst(run.confusion)}",
        ),
        "strips": strips,
        "colours": colours,
        "mistakes": run.mistakes,
        "confused": run.confused,
    }


def _clip_words(run: RunView) -> str:
    """A head's top-1 with its interval, beside the frame average and chance."""
    test = run.metrics["test"]
    words = f"top-1 {test['top1']:.1%}"
    if interval := test.get("top1_interval"):
        words += f" (95 %: {interval[0]:.0%} to {interval[1]:.0%})"
    elif "groups" in test:
        words += f" (no interval: the test has {test['groups']} groups, it needs {LEAST_GROUPS})"
    base = run.metrics.get("baseline", {})
    if "frame_average" in base:
        words += f", frame average {base['frame_average']:.1%}, chance {base['chance']:.1%}"
    return words


def _step_words(test: Mapping[str, Any]) -> str:
    """The published figures of a head that labels every step, those that it has."""
    figures = [
        f"{words} {test[name]:.3f}"
        for name, words in STEP_FIGURES.items()
        if test.get(name) is not None
    ]
    return ", ".join(figures)


def _worst(confusion: pd.DataFrame) -> str:
    wrong = confusion.to_numpy(dtype=float).copy()
    np.fill_diagonal(wrong, 0)
    if not wrong.any():
        return "none."
    true, predicted = np.unravel_index(int(wrong.argmax()), wrong.shape)
    names = confusion.index
    return (
        f"most often {names[int(true)]} called {names[int(predicted)]} ({int(wrong.max())} clips)."
    )
