"""Streams × heads on real clips, cell by cell: `benchmarks/results/streams.json`, for `docs/results.md`.

A cell is one run: repeated folds by whole groups on one stream. A cell that is done is not done
again; `runs` beside the stores holds them. See `benchmarks.results_page` for the command.
"""

from __future__ import annotations

import functools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

import store
from benchmarks.results_cells import CELLS, REPEATS, STREAM_SETS, Cell, Stream, StreamSet
from flows.checks.leaks import Asked, checked_leaks
from flows.train.shared import Loaded, load_stores
from pipeline.errors import ConfigError
from pipeline.heads.compare import paired_difference
from pipeline.heads.config import TrainConfig
from pipeline.heads.leaks import record_file, record_leaks, tested_hash
from pipeline.heads.plan import make_splits, require_same_run
from pipeline.heads.run_folder import read_config, read_metrics
from pipeline.heads.training import train
from pipeline.heads.work_folder import is_finished
from pipeline.plain import read_json, write_json

FIGURES = Path(__file__).resolve().parent / "results" / "streams.json"
FOLDS = 3
AVERAGE = "frame_average"
GUESS_S = {"solved": 12.0, "gradient": 600.0}
"""Seconds of a cell of which nothing is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What one call is to do. minutes: cells are begun until then (0: no limit)."""

    work: Path
    clips: str = ""
    weights: str = "imagenet"
    pose_weights: str = ""
    sets: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()
    minutes: float = 0.0


Place = tuple[StreamSet, Stream, Cell]


def run_cells(wanted: Wanted) -> dict[str, Any]:
    """Make the stores that lack, the leak checks, and every cell; returns all figures, old and new.

    Written after every cell, so that what is done stays done.
    """
    figures: dict[str, Any] = kept()
    started = time.monotonic()
    places = _places(wanted)
    paces: list[float] = []
    for number, (group, stream, cell) in enumerate(places):
        left = remaining_s(places[number:], figures, paces)
        if wanted.minutes and time.monotonic() - started > 60 * wanted.minutes:
            print(f"{len(places) - number} cells are left: run it again to go on")
            break
        print(
            f"cell {number + 1} of {len(places)}: {group.name} · {stream.name} · {cell.name}; "
            f"about {left / 60:.0f} min left",
            flush=True,
        )
        of_set = figures.setdefault(group.name, {"cells": {}})
        cells = of_set["cells"].setdefault(stream.name, {})
        try:
            before = cells.get(cell.name, {}).get("seconds")
            seconds, cells[cell.name] = _cell(wanted, group, stream, cell)
        except (ConfigError, store.StoreError) as error:
            print(f"not run: {error}")
            continue
        if seconds and before:
            paces.append(seconds / before)
        _about(of_set, wanted, group, stream)
        _leads(of_set, wanted, group)
        FIGURES.parent.mkdir(parents=True, exist_ok=True)
        write_json(FIGURES, figures)
    return figures


def kept() -> dict[str, Any]:
    """The figures of the cells that were run before."""
    return json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}


def remaining_s(
    places: Sequence[Place], figures: Mapping[str, Any], paces: Sequence[float]
) -> float:
    """How long these cells take: by what each took before, else the same head elsewhere, else a guess.

    paces: how much longer than before the cells of this call took
    """
    took: dict[tuple[str, str, str], float] = {
        (name, stream, cell): float(found["seconds"])
        for name, of_set in figures.items()
        for stream, cells in of_set["cells"].items()
        for cell, found in cells.items()
    }
    pace = statistics.median(paces) if paces else 1.0
    total = 0.0
    for group, stream, cell in places:
        known = took.get((group.name, stream.name, cell.name))
        others = [seconds for (_, _, name), seconds in took.items() if name == cell.name]
        guess = (
            statistics.mean(others) if others else GUESS_S["solved" if cell.solved else "gradient"]
        )
        total += pace * (guess if known is None else known)
    return total


def _places(wanted: Wanted) -> list[Place]:
    """The cells in the order in which they are run: the quick heads of every stream first."""
    places = [
        (group, stream, cell)
        for cell in CELLS
        for group in STREAM_SETS
        for stream in group.streams
        if not wanted.sets or group.name in wanted.sets
        if not wanted.streams or stream.name in wanted.streams
        if not wanted.heads or cell.name in wanted.heads
    ]
    return sorted(places, key=lambda place: not place[2].solved)


def _cell(
    wanted: Wanted, group: StreamSet, stream: Stream, cell: Cell
) -> tuple[float, dict[str, Any]]:
    """(seconds it took now, the figures of the cell); 0 seconds where it had been done."""
    loaded = _loaded(_url(wanted, group, stream))
    config = TrainConfig(
        split="kfold",
        folds=FOLDS,
        repeats=cell.repeats,
        baselines=False,
        head=cell.head,
        options=dict(cell.options),
        **cell.settings,
    )
    folder = _run(wanted, group, stream, cell.name)
    overwrite = is_finished(folder) and not _same(folder, loaded, config)
    if is_finished(folder) and not overwrite:
        return 0.0, _figures(folder)
    started = time.monotonic()
    train(
        loaded.clips,
        config,
        folder,
        resume=not overwrite,
        overwrite=overwrite,
        first_stage=loaded.first_stage,
    )
    return time.monotonic() - started, _figures(folder)


def _same(folder: Path, loaded: Loaded, config: TrainConfig) -> bool:
    """Whether a finished run is the one that would be trained."""
    try:
        require_same_run(folder, loaded.clips, config)
    except ConfigError:
        return False
    return True


def _figures(folder: Path) -> dict[str, Any]:
    metrics = read_metrics(folder)
    test = metrics["test"]
    by_fold = [fold["top1"] for fold in metrics["folds"]]
    return {
        "top1": test["top1_pooled"],
        "interval": test["top1_interval"],
        "macro_f1": test["macro_f1"],
        "folds": len(by_fold),
        "lowest": min(by_fold),
        "highest": max(by_fold),
        "repeats": [each["top1"] for each in metrics.get("repeats", [])] or [test["top1_pooled"]],
        "seconds": metrics["seconds"],
        "parameters": metrics["parameters"],
        "training_clips": _training_clips(folder),
        "recall": _recall(folder),
    }


def _recall(folder: Path) -> dict[str, float]:
    """Class → the share of its test clips that were told, all folds and repeats together."""
    table = pd.read_csv(folder / "classes.csv")
    return dict(zip(table["class"].astype(str), table["recall"].round(4).tolist(), strict=True))


def _training_clips(folder: Path) -> int:
    """Training and validation clips of a fold, as a median."""
    folds = read_config(folder)["folds"]
    counts = [len(f["train"]["rows"]) + len(f["validation"]["rows"]) for f in folds]
    return int(statistics.median(counts))


def _about(of_set: dict[str, Any], wanted: Wanted, group: StreamSet, stream: Stream) -> None:
    """What the clips and the stream are, and the leak checks of these folds, once each."""
    url = _url(wanted, group, stream)
    clips = _loaded(url).clips
    streams = of_set.setdefault("streams", {})
    streams[stream.name] = {"spec": dict(clips.spec), "fingerprint": clips.fingerprint}
    config = TrainConfig(split="kfold", folds=FOLDS, repeats=REPEATS)
    tested = tested_hash(clips, make_splits(clips, config))
    if of_set.get("leaks", {}).get("tested") == tested:
        return
    runs = wanted.work / "runs" / group.name
    file = record_file(runs, tested)
    if not file.exists():
        videos = f"{wanted.clips}/{group.name}" if wanted.clips else ""
        asked = Asked(store=url, run=None, config=config, videos=videos)
        print(f"leak checks of {group.name}", flush=True)
        record_leaks(runs, checked_leaks(asked, lambda a, b: None, lambda a, b: None))
    leaks = read_json(file, absent=f"{file} is gone", damaged=f"{file} is damaged")
    of_set["leaks"] = {name: value for name, value in leaks.items() if name != "store"}
    of_set |= {"clips": leaks["clips"], "groups": leaks["groups"], "classes": list(clips.classes)}


def _leads(of_set: dict[str, Any], wanted: Wanted, group: StreamSet) -> None:
    """Each cell, paired: over the frame average of the first stream, and of its own with as many clips;
    what shuffled steps lost to those in order."""

    def pair(found: dict[str, Any], name: str, first: Path, second: Path) -> None:
        if first != second and is_finished(first) and is_finished(second):
            found[name] = paired_difference(first, second, same_features=False)

    for stream in group.streams:
        for cell in CELLS:
            found = of_set["cells"].get(stream.name, {}).get(cell.name)
            if found is None:
                continue
            run = _run(wanted, group, stream, cell.name)
            if cell.part == "order":
                pair(found, "lost", _run(wanted, group, stream, cell.head), run)
            share = cell.name.removeprefix(cell.head) if cell.part == "learning" else ""
            pair(found, "over_average", run, _run(wanted, group, stream, f"{AVERAGE}{share}"))
            pair(found, "lead", run, _run(wanted, group, group.streams[0], AVERAGE))


def _run(wanted: Wanted, group: StreamSet, stream: Stream, cell: str) -> Path:
    return wanted.work / "runs" / group.name / f"{stream.name} {cell}"


@functools.lru_cache(maxsize=4)
def _loaded(url: str) -> Loaded:
    return load_stores(url)


def _url(wanted: Wanted, group: StreamSet, stream: Stream) -> str:
    """The address of a stream; its store, or those that it joins, are made where they lack."""
    if stream.joins:
        parts = [next(s for s in group.streams if s.name == name) for name in stream.joins]
        return "+".join(_url(wanted, group, part) for part in parts)
    path = wanted.work / f"{group.name}-{stream.name}.zarr"
    if not path.exists() or store.open(path).counts()["pending"]:
        if not wanted.clips:
            raise ConfigError(f"{path} lacks rows: pass --clips, or put the store there")
        weights = wanted.pose_weights if stream.pose else wanted.weights
        given = ["--weights", weights] if stream.weights and weights else []
        words = ["--videos", f"{wanted.clips}/{group.name}", "--store", str(path), *given]
        command = [sys.executable, "-m", "flows", "features", *words, *stream.features]
        if subprocess.run(command, check=False).returncode:
            raise ConfigError(f"{path} could not be made: see above")
    return str(path)
