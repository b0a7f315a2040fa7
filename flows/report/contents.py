"""Gathers what a report shows: the store's table and pictures, its clips' vectors, its runs."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import store
from flows.report.steps import step_view
from flows.report.vectors import ClipVectors, clip_vectors
from pipeline.errors import ConfigError
from pipeline.features.reasons import FAILURES, WARNINGS
from pipeline.heads.neighbours import look_alikes, project
from pipeline.heads.spans import whole_files
from pipeline.plain import read_table
from pipeline.report.contents import (
    ClipCard,
    ConfusedPair,
    Contents,
    FeatureMap,
    Pair,
    RunView,
    middle,
)
from pipeline.spec import Spec

MOST_FAILED = 60
MOST_PAIRS = 40
MOST_COMPARED = 20_000
MOST_MISTAKES = 9
MOST_RUNS = 12
MOST_CONFUSED, MOST_OF_PAIR = 4, 2

Table = tuple[Sequence[str], Sequence[Sequence[Any]]]
"""Head and lines."""


def gather(
    url: str,
    runs_folder: str = "runs",
    *,
    wall: int = 20,
    hover: int = 2000,
    near: float = 0.98,
    seed: int = 0,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Contents:
    """Everything that the page of a store and its runs shows. Raises `store.StoreError`.

    wall: random clips to show · hover: points of the map that show their clip · near: the cosine
    similarity from which two clips are look-alikes · seed: of what is drawn at random.
    """
    source = store.open_all(url)
    table = source.table()
    random = np.random.default_rng(seed)
    cards = _Cards(source, table, clip_vectors(source, on_progress=on_progress), random)
    boards, over_seeds, runs, warnings = _runs(Path(runs_folder), source, cards)
    if source.spec["weights"].startswith("random"):
        warnings.insert(0, "these features come from random weights, not ImageNet's.")
    ready = table.index[table["state"] == "ready"].to_numpy()
    labelled = ready[(table.loc[ready, "label"] != "").to_numpy()]
    drawn = labelled if len(labelled) else ready
    failed = table.index[table["state"] == "failed"].to_numpy()
    feature_map, map_note = cards.map(hover, seed)
    pairs, pairs_note = cards.pairs(near)
    return Contents(
        name=Path(url.rstrip("/")).name,
        made=datetime.datetime.now().strftime("%-d %B %Y, %H:%M"),
        facts=_facts(source, table),
        table=table,
        remedies={r.code: (r.meaning, r.remedy) for r in (*FAILURES.values(), *WARNINGS.values())},
        wall=cards.of(np.sort(random.choice(drawn, min(wall, len(drawn)), replace=False))),
        failed=cards.of(failed[:MOST_FAILED], table.loc[failed[:MOST_FAILED], "reason"].tolist()),
        feature_map=feature_map,
        map_note=map_note,
        pairs=pairs,
        pairs_note=pairs_note,
        boards=boards,
        leaks=_leaks(Path(runs_folder), boards),
        learning=_learning(Path(runs_folder), boards),
        over_seeds=over_seeds,
        runs=runs,
        warnings=warnings,
    )


class _Cards:
    """Makes cards of rows, their pictures read from the store; and the views that are made of cards."""

    def __init__(
        self, source: Any, table: pd.DataFrame, vectors: ClipVectors, random: np.random.Generator
    ) -> None:
        self._source, self._table, self._vectors, self._random = source, table, vectors, random
        self.rows = pd.Series(table.index.to_numpy(), index=table["video_id"].to_numpy())
        # Heads of steps are tested on whole files.
        self.known = {*self.rows.index, *whole_files(table)}

    def pictures(self, rows: Sequence[int] | np.ndarray) -> list[list[bytes]]:
        return self._source.previews(rows) if len(rows) else []

    def of(
        self, rows: Sequence[int] | np.ndarray, notes: Sequence[str] | None = None
    ) -> list[ClipCard]:
        some = self._table.loc[np.asarray(rows, dtype=np.int64)]
        words = notes or [""] * len(rows)
        each = zip(some["video_id"], some["label"], words, self.pictures(rows), strict=True)
        return [
            ClipCard(video_id=video, label=label, note=note, pictures=pictures)
            for video, label, note, pictures in each
        ]

    def map(self, hover: int, seed: int) -> tuple[FeatureMap | None, str]:
        """All ready clips in the plane, `hover` of them with a picture; and a note on those."""
        rows = self._vectors.rows
        if len(rows) < 3:
            return None, ""
        points, shares = project(self._vectors.vectors, seed=seed)
        chosen = np.arange(len(points))
        if len(chosen) > hover:
            chosen = np.sort(self._random.choice(len(points), hover, replace=False))
        shown = {
            int(place): middle(pictures)
            for place, pictures in zip(chosen, self.pictures(rows[chosen]), strict=True)
            if pictures
        }
        feature_map = FeatureMap(
            points=points,
            video_ids=self._table.loc[rows, "video_id"].tolist(),
            labels=self._table.loc[rows, "label"].tolist(),
            shares=shares,
            pictures=shown,
        )
        some = f"{len(shown):,} of {len(points):,}" if len(shown) < len(points) else "All"
        return feature_map, f"{some} points show their clip under the pointer." if shown else ""

    def pairs(self, near: float) -> tuple[list[Pair], str]:
        """Look-alikes; suspects (other split, group or label) first, which is where a test leaks."""
        at = every = np.arange(len(self._vectors.rows))
        if len(at) > MOST_COMPARED:
            at = np.sort(self._random.choice(at, MOST_COMPARED, replace=False))
        found = look_alikes(self._vectors.vectors[at], near=near, most=2000)
        rows = self._vectors.rows[at]
        first, second = (rows[found[name].to_numpy()] for name in ("first", "second"))
        why = [_suspect(self._table, a, b) for a, b in zip(first, second, strict=True)]
        order = sorted(range(len(why)), key=lambda i: (not why[i], i))[:MOST_PAIRS]
        left = self.of(first[order], _groups(self._table, first[order]))
        right = self.of(second[order], _groups(self._table, second[order]))
        pairs = [
            Pair(first=a, second=b, similarity=float(found["similarity"].iloc[i]), suspect=why[i])
            for i, a, b in zip(order, left, right, strict=True)
        ]
        random = "random " if len(at) < len(every) else ""
        count = f"{len(found):,}{'+' if len(found) == 2000 else ''}"
        pairs_have = "pair has" if count == "1" else "pairs have"
        note = (
            f"{count} {pairs_have} a similarity of {near:g} or more (every pair of {len(at):,} "
            f"{random}clips was compared); "
            f"{sum(map(bool, why)):,} of them of different splits, groups or labels"
            f"{f'; {len(order)} are shown' if len(order) < len(found) else ''}. "
            "Such clips on both sides of a split flatter the test."
        )
        return pairs, note


def _facts(source: Any, table: pd.DataFrame) -> list[tuple[str, str]]:
    spec = source.spec
    facts = {
        "fingerprint": source.fingerprint,
        "backbone": spec["backbone"],
        "weights": spec["weights"],
        "sampling": ", ".join(f"{k} {v}" for k, v in spec["sampling"].items() if v),
        "fit": f"{spec['fit']}, {spec['interpolation']}, {spec['size']} px",
        "view": spec["view"],
        "precision": f"{spec['precision']}, stored as {spec['dtype']}",
        "features per clip": f"{source.steps} × {' × '.join(map(str, source.shape))}",
        "written by": ", ".join(f"{k} {v}" for k, v in source.software.items()),
    }
    aspect = table.loc[table["state"] == "ready", "pixel_aspect"].to_numpy()
    odd = int(((aspect > 0) & (np.abs(aspect - 1) > 1e-3)).sum())
    if odd:
        stretched = Spec.from_dict(spec).aspect == "display"
        how = "stretched to the shape in which they are shown" if stretched else "taken for square"
        facts["pixels"] = f"not square in {odd:,} clips, {how}"
    return [(name, str(value)) for name, value in facts.items()]


def _suspect(table: pd.DataFrame, first: int, second: int) -> str:
    a, b = table.loc[first], table.loc[second]
    names = [n for n in ("split", "group", "label") if a[n] and b[n] and a[n] != b[n]]
    return f"different {' and '.join(f'{name}s' for name in names)}" if names else ""


def _groups(table: pd.DataFrame, rows: np.ndarray) -> list[str]:
    return [f"group {group}" if group else "" for group in table.loc[rows, "group"]]


def _runs(
    folder: Path, source: Any, cards: _Cards
) -> tuple[list[pd.DataFrame], Table, list[RunView], list[str]]:
    """The boards and runs of this store's features; other runs are counted, not shown."""
    from pipeline.heads.compare import leaderboards
    from pipeline.heads.repeats import COLUMNS, repeats_among

    try:
        boards = [board.table for board in leaderboards(folder)]
    except ConfigError:
        return [], ((), ()), [], []
    mine = [board for board in boards if _of_this_store(folder, board, source, cards)]
    others = sum(map(len, boards)) - sum(map(len, mine))
    warnings = []
    if others:
        warnings.append(
            f"{folder} holds {others} other run{'s' * (others > 1)}, trained on other stores' "
            "clips: not shown."
        )
    best = [str(name) for board in mine for name in board["run"]]
    repeated = [each.line() for each in repeats_among([folder / name for name in best])]
    views = [_run_view(folder / name, cards) for name in best[:MOST_RUNS]]
    for view in views:
        base, test = view.metrics.get("baseline", {}), view.metrics["test"]
        if base.get("frame_average", 0) > test["top1"]:
            warnings.append(
                f"{view.name} ({test['top1']:.0%}) is behind the frame average "
                f"({base['frame_average']:.0%}), which ignores the order of frames."
            )
    return mine, (COLUMNS if repeated else (), repeated), views, warnings


def _learning(folder: Path, boards: Sequence[pd.DataFrame]) -> Table:
    """The learning curves of these boards' runs."""
    from pipeline.heads.learning import COLUMNS, curves_among

    curves = curves_among([folder / str(name) for board in boards for name in board["run"]])
    lines = [line for curve in curves for line in curve.lines()]
    return (COLUMNS if lines else ()), lines


def _leaks(folder: Path, boards: Sequence[pd.DataFrame]) -> list[str]:
    """For each board the leak check of its test clips in a sentence; empty where none was made."""
    from pipeline.heads.leaks import leak_sentence, recorded_leaks

    records = [recorded_leaks(folder / str(board["run"].iloc[0])) for board in boards]
    return [leak_sentence(record) if record else "" for record in records]


def _of_this_store(folder: Path, board: pd.DataFrame, source: Any, cards: _Cards) -> bool:
    """Whether a board's runs were tested on this store's clips: another may be of the same spec."""
    from pipeline.heads.compare import features_of
    from pipeline.heads.run_folder import read_config

    if not any(source.fingerprint in features_of(folder / str(name)) for name in board["run"]):
        return False
    config = read_config(folder / str(board["run"].iloc[0]))
    folds = config["folds"] or [config["split"]]
    tested = {video for fold in folds for video in fold["test"]["video_ids"]}
    return len(tested & cards.known) * 2 > len(tested)


def _run_view(folder: Path, cards: _Cards) -> RunView:
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    if metrics.get("labels") == "steps":
        return step_view(folder, metrics)
    mistakes = _read(folder / "mistakes.csv").head(MOST_MISTAKES)
    shown = mistakes[mistakes["video_id"].isin(cards.rows.index)]
    rows = cards.rows.reindex(shown["video_id"]).to_numpy()
    notes = [
        f"called {label}, {float(confidence):.0%} sure"
        for label, confidence in zip(shown["predicted"], shown["confidence"], strict=True)
    ]
    return RunView(
        name=folder.name,
        metrics=metrics,
        history=pd.read_csv(folder / "history.csv"),
        confusion=_read(folder / "confusion.csv", index_col=0).astype(float),
        mistakes=cards.of(rows, notes),
        confused=_confused(folder, cards),
    )


def _confused(folder: Path, cards: _Cards) -> list[ConfusedPair]:
    """The classes that a run takes for each other most often, with its surest clips of each pair."""
    from pipeline.heads.compare import confused_pairs

    pairs = []
    for label, predicted, clips, ids in confused_pairs(folder, most=MOST_CONFUSED):
        known = [video for video in ids if video in cards.rows.index][:MOST_OF_PAIR]
        shown = cards.of(cards.rows.reindex(known).to_numpy(np.int64))
        pairs.append(ConfusedPair(label=label, predicted=predicted, clips=clips, shown=shown))
    return pairs


def _read(path: Path, **options: Any) -> pd.DataFrame:
    # A class named NA stays a name.
    return read_table(path, dtype=str, **options)
