"""Heads on real clips, cross-validated by whole groups → `docs/results.md`, in one command.

    make results CLIPS=path/to/clips WEIGHTS=path/to/weights.h5 POSE_WEIGHTS=path/to/models

`CLIPS` holds a folder per data set, each with a folder per class. It makes the table of streams ×
heads, cell by cell, the quick heads of every stream first, says how long the rest will take, and
begins no cell after an hour (`MINUTES=0`: no limit; run it again to go on). `ONLY=all-heads` makes the
older boards of every head on one stream instead. Every step resumes: features that a store holds and
runs that are finished are not made again, and stores that lie in `WORK` as SET-STREAM.zarr are used as
they are. The figures are kept in `benchmarks/results/streams.json` and `heads.json`; with `--page`
alone the page is written from them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks import results_words
from benchmarks.alternating import kept
from benchmarks.results_sets import SETS, DataSet
from benchmarks.results_table import stream_sections
from pipeline.heads.compare import Leaderboard, leaderboards, paired_difference
from pipeline.heads.run_folder import DONE, read_config
from pipeline.plain import write_json

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "benchmarks" / "results" / "heads.json"
PAGE = ROOT / "docs" / "results.md"
RIVAL = "frame_average"


def main() -> None:
    """Make what is missing, then the figures, then the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clips", default="", help="folder of the data sets' folders")
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--pose-weights", default="", help="folder of the pose models")
    parser.add_argument("--work", default="results-work", help="where stores and runs go")
    parser.add_argument("--only", default="streams", choices=("streams", "all-heads"))
    parser.add_argument("--sets", default="", help="these data sets, with commas between them")
    parser.add_argument("--streams", default="", help="these streams, with commas between them")
    parser.add_argument("--heads", default="", help="these heads, with commas between them")
    parser.add_argument(
        "--minutes", type=float, default=60, help="begin no cell after so many; 0: no limit"
    )
    parser.add_argument("--page", action="store_true", help="only write the page")
    options = parser.parse_args()
    if not options.page and options.only == "streams":
        _run_streams(options)
    elif not options.page:
        _run_all_heads(options)
    PAGE.write_text(page(), encoding="utf-8")
    print(f"written: {PAGE}")


def _run_streams(options: argparse.Namespace) -> None:
    from benchmarks.results_streams import Wanted, run_cells

    chosen = {
        name: tuple(filter(None, getattr(options, name).split(",")))
        for name in ("sets", "streams", "heads")
    }
    wanted = Wanted(
        work=Path(options.work),
        clips=options.clips,
        weights=options.weights,
        pose_weights=options.pose_weights,
        minutes=options.minutes,
        **chosen,
    )
    run_cells(wanted)


def _run_all_heads(options: argparse.Namespace) -> None:
    figures = kept("heads")
    for one in SETS:
        if not options.sets or one.name in options.sets.split(","):
            work = Path(options.work)
            if options.clips:
                _make(one, Path(options.clips), options.weights, work)
            figures[one.name] = _figures(one, work / "runs")
    FIGURES.parent.mkdir(parents=True, exist_ok=True)
    write_json(FIGURES, figures)


def _make(one: DataSet, clips: Path, weights: str, work: Path) -> None:
    store = work / f"{one.name}.zarr"
    command = [sys.executable, "-m", "flows"]
    videos = [] if one.name == "demo" else ["--videos", str(clips / one.name.split("-")[0])]
    subprocess.run(
        [*command, "features", *videos, "--store", str(store), "--weights", weights, *one.features],
        check=True,
    )
    stores = f"{work / one.beside}.zarr,{store}" if one.beside else str(store)
    subprocess.run(
        [
            *[*command, "sweep", "--store", stores, "--heads", one.heads],
            *["--split", "kfold", "--folds", "3", "--runs", str(work / "runs" / one.name)],
            *one.training,
        ],
        check=True,
    )


def _figures(one: DataSet, work: Path) -> dict[str, Any]:
    """The board of a data set, each head held against its rival by a paired bootstrap."""
    runs = work / one.name
    board: Leaderboard = leaderboards(runs)[0]
    table = board.table
    lines = []
    for record in table.to_dict("records"):
        line = {str(key): value for key, value in record.items()}
        folder = runs / str(line["run"])
        line["options"] = read_config(folder)["head"]["config"]
        rival = _rival(one, line, table, work)
        if rival is not None and rival != folder:
            line["against"] = paired_difference(folder, rival)
        lines.append({key: None if _missing(value) else value for key, value in line.items()})
    config = read_config(runs / str(table["run"].iloc[0]))
    metrics = json.loads(
        (runs / str(table["run"].iloc[0]) / "metrics.json").read_text(encoding="utf-8")
    )
    groups = {
        split["fold"]: len(split["test"]["video_ids"])
        for split in config["folds"] or [config["split"]]
    }
    return {
        "lines": lines,
        "spec": config["spec"],
        "fingerprint": config["fingerprint"],
        "classes": config["classes"],
        "clips": int(table["clips"].iloc[0]),
        "majority": metrics["baseline"]["majority"],
        "test_clips_by_fold": list(groups.values()),
        "epochs": config["train"]["epochs"],
        "patience": config["train"]["patience"],
        "software": config["software"],
    }


def _rival(one: DataSet, line: dict[str, Any], table: pd.DataFrame, work: Path) -> Path | None:
    """The run that a line is held against: the same head on one view, or the frame average."""
    if one.beside:
        for folder in sorted((work / one.beside).glob("*")):
            head = read_config(folder)["head"] if (folder / DONE).exists() else {}
            if head.get("name") == line["head"] and head["config"] == line["options"]:
                return folder
        return None
    average = table[table["head"] == RIVAL]["run"]
    return work / one.name / str(average.iloc[0]) if len(average) else None


def _missing(value: Any) -> bool:
    return isinstance(value, float) and bool(pd.isna(value))


def page() -> str:
    """The whole page as Markdown, from the figures that were kept."""
    figures = kept("heads")
    parts = [
        *results_words.HEADING,
        "",
        *stream_sections(kept("streams")),
        "",
        "## Every head on one stream",
        "",
        results_words.ALL_HEADS,
    ]
    for one in SETS:
        if one.name in figures:
            parts += ["", f"### {one.title}", "", *_section(one, figures[one.name])]
    parts += ["", *results_words.READING, ""]
    return "\n".join(parts)


def _section(one: DataSet, found: dict[str, Any]) -> list[str]:
    spec = found["spec"]
    weights = spec["weights"]
    held = any(line.get("against") for line in found["lines"])
    rival = "one view" if one.beside else "the frame average"
    against = (f" against {rival} |", " --- |") if held else ("", "")
    source = "no weights" if weights == "none" else f"weights `{weights[:19]}`"
    lines = [
        f"{found['clips']} clips, {spec['backbone']} ({source}), fit `{spec['fit']}`, "
        f"{spec['sampling']['steps']} steps; at most {found['epochs']} epochs, patience "
        f"{found['patience']}. Always the commonest class: {found['majority']:.3f}.",
        "",
        f"| head | top-1 | ± | macro-F1 | validation top-1 |{against[0]} parameters | training s |",
        f"| --- | --- | --- | --- | --- |{against[1]} --- | --- |",
    ]
    for line in found["lines"]:
        gap = line.get("against")
        gap_cell = " – |" if held else ""
        if gap:
            gap_cell = f" {gap['difference']:+.3f} ({_interval(gap)}) |"
        spread = "–" if line["spread"] is None else f"{line['spread']:.3f}"
        lines.append(
            f"| {name_of(line)} | {line['top1']:.3f} | {spread} | {line['macro_f1']:.3f} | "
            f"{line['validation_top1']:.3f} |{gap_cell} {line['parameters']:,} | "
            f"{line['train_seconds']:.0f} |"
        )
    verdict = _verdict_of_views if one.beside else _verdict
    return [*lines, "", *verdict(found["lines"])] if held else lines


def _interval(gap: dict[str, Any]) -> str:
    """The interval of a difference in words, or that there is none."""
    if gap["low"] is None or pd.isna(gap["low"]):
        return f"none: {gap['groups']} groups"
    return f"{gap['low']:+.3f} to {gap['high']:+.3f}"


def best_and_plain(lines: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The best head by validation, of several the smallest, and the frame average."""
    others = [line for line in lines if line["head"] != RIVAL]
    best = max(others, key=lambda line: (line["validation_top1"], -line["parameters"]))
    return best, next(line for line in lines if line["head"] == RIVAL)


def _verdict(lines: list[dict[str, Any]]) -> list[str]:
    """What the figures say of the frame average and its best rival, chosen on validation."""
    if not any(line.get("against") for line in lines):
        return []
    best, plain = best_and_plain(lines)
    others = [line for line in lines if line.get("against")]
    gap = best["against"]
    comparison = (
        f"Best other head by validation: **{name_of(best)}**, mean test top-1 {best['top1']:.3f} "
        f"beside {plain['top1']:.3f} of the frame average; over all test clips pooled the difference "
        f"is {gap['difference']:+.3f}, interval {_interval(gap)}."
    )
    if gap["low"] is None or pd.isna(gap["low"]):
        return [comparison]
    if gap["low"] > 0:
        return [
            f"{comparison} The lead is more than chance: the order of the steps tells something."
        ]
    if gap["high"] < 0:
        return [f"{comparison} The frame average is better, beyond chance."]
    better = sum((line["against"]["low"] or 0) > 0 for line in others)
    tail = (
        f"{better} of the {len(others)} other heads are ahead of the frame average beyond chance."
        if better
        else "No other head is ahead of the frame average beyond chance."
    )
    return [
        f"{comparison} The interval holds 0: on these clips the two cannot be told apart. {tail}"
    ]


def _verdict_of_views(lines: list[dict[str, Any]]) -> list[str]:
    """What a second view brought to the heads that were trained with and without it."""
    gains = [line["against"] for line in lines if line.get("against")]
    if not gains:
        return []
    mean = sum(gain["difference"] for gain in gains) / len(gains)
    sure = sum((gain["low"] or 0) > 0 for gain in gains)
    return [results_words.VIEWS.format(mean=mean, heads=len(gains), sure=sure)]


def name_of(line: dict[str, Any]) -> str:
    options = line["options"]
    if line["head"] == "gru":
        return f"gru {options['units']} → {options['second_units']}"
    if line["head"] in ("lstm", "bilstm", "stacked"):
        return f"{line['head']} {options['units']}"
    return str(line["head"])


if __name__ == "__main__":
    main()
