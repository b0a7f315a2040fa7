"""`pixels-once compare`: runs side by side, a leaderboard for each test set."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.cli.terminal import print_json, print_over_seeds, print_table
from flows.settings.resolve import setting
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.heads.compare import Leaderboard

EXAMPLES = "pixels-once compare --runs runs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Compares runs: a leaderboard per test set, as a table, CSV and plot."""

    runs: str = setting("runs", "folder of all runs", metavar="DIR")
    out: str = setting("", "where leaderboard.csv and .png go (default: RUNS)", metavar="DIR")
    against: str = setting(
        "",
        "a run to compare the others with, by the paired bootstrap interval over groups "
        "(default: the frame average of the same test set)",
        metavar="NAME",
    )
    test_set: str = setting(
        "", "only runs that were tested on this test set of a store", metavar="NAME"
    )


def run(settings: Settings, *, json: bool) -> int:
    """Rank runs that were tested on the same clips; runs on other clips get a board of their own."""
    from pipeline.heads.compare import leaderboards, paired_difference, write_leaderboards
    from pipeline.heads.leaks import leak_sentence, recorded_leaks
    from pipeline.heads.learning import COLUMNS, curves_among
    from pipeline.heads.repeats import repeats_among

    folder = Path(settings.runs)
    boards = _of_test_set(leaderboards(folder), settings)
    written = write_leaderboards(boards, Path(settings.out or settings.runs))
    if settings.against and not any(settings.against in list(b.table["run"]) for b in boards):
        raise ConfigError(
            f"against is {settings.against!r}, which is no finished run in {settings.runs}: "
            "name one of the leaderboard"
        )
    ranked: list[dict[str, Any]] = []
    for leaderboard in boards:
        rival = settings.against or _frame_average(leaderboard.table)
        lines = leaderboard.table.to_dict("records")
        for line in lines:
            if rival and line["run"] != rival:
                # Another board's run: tested on the same clips under other labels, or on others.
                with contextlib.suppress(ConfigError):
                    paired = paired_difference(folder / str(line["run"]), folder / rival)
                    line["against"] = {"run": rival, **paired}
        board: dict[str, Any] = {"test_set": leaderboard.test_set, "runs": lines}
        if leaks := recorded_leaks(folder / str(lines[0]["run"])):
            board["leaks"] = leaks
        ranked.append(board)
    seeds = repeats_among([folder / str(name) for board in boards for name in board.table["run"]])
    curves = curves_among([folder / str(name) for board in boards for name in board.table["run"]])
    if json:
        print_json(
            boards=ranked,
            learning_curves=[each.to_dict() for each in curves],
            over_seeds=[each.to_dict() for each in seeds],
            files=[str(path) for path in written],
        )
        return 0
    for number, board in enumerate(ranked, start=1):
        _print(board["runs"], number, len(ranked))
        if "leaks" in board:
            print(leak_sentence(board["leaks"]))
    if len(ranked) > 1:
        print(
            f"{len(ranked)} test sets: figures of different boards do not compare, so nothing is "
            "ranked across them"
        )
    print_over_seeds(seeds)
    if curves:
        points = [point for curve in curves for point in curve.lines()]
        print_table("learning curves, over whole groups", COLUMNS, points)
    print("written: " + ", ".join(str(path) for path in written))
    return 0


def _of_test_set(boards: list[Leaderboard], settings: Settings) -> list[Leaderboard]:
    """The boards of a store's test set, where one is named; raises `ConfigError` where none is."""
    from pipeline.heads.run_folder import read_config

    if not settings.test_set:
        return boards
    first_runs = (Path(settings.runs) / str(board.table["run"].iloc[0]) for board in boards)
    chosen = [
        board
        for board, run in zip(boards, first_runs, strict=True)
        if read_config(run)["split"].get("test_set", "") == settings.test_set
    ]
    if not chosen:
        raise ConfigError(
            f"no finished run in {settings.runs} was tested on the test set {settings.test_set!r}: "
            f"train one with --test-set {settings.test_set}"
        )
    return chosen


def _frame_average(table: pd.DataFrame) -> str:
    """The board's frame average, against which the others are held; empty where it has none."""
    chosen = table[table["head"] == "frame_average"]
    return str(chosen["run"].iloc[0]) if len(chosen) else ""


_CLIP_FIGURES = {"top1": "top-1", "spread": "±", "top5": "top-5", "macro_f1": "macro-F1"}


def _print(lines: list[dict[str, Any]], number: int, boards: int) -> None:
    import pandas as pd

    from pipeline.heads.steps.measures import STEP_FIGURES

    first = lines[0]
    several = len({line["features"] for line in lines}) > 1
    which = f"board {number} of {boards} · " if boards > 1 else ""
    per_step = "frame_accuracy" in first
    figures = STEP_FIGURES if per_step else _CLIP_FIGURES
    tested = f"{first['clips']} test {'video' if per_step else 'clip'}{'s' * (first['clips'] != 1)}"
    print_table(
        f"{which}{tested} · split {first['split']} · spec "
        f"{', '.join(dict.fromkeys(line['fingerprint'] for line in lines))}",
        (
            *("run", "features", *figures.values()),
            *("against", "parameters", "train s", "steps/s" if per_step else "clips/s"),
        ),
        [
            (
                line["run"],
                line["features"] if several else "",
                *("" if pd.isna(line[name]) else f"{line[name]:.3f}" for name in figures),
                _difference(line.get("against")),
                line["parameters"],
                f"{line['train_seconds']:.0f}",
                f"{line['inference_clips_per_second']:,.0f}",
            )
            for line in lines
        ],
    )
    held = next((line["against"]["run"] for line in lines if "against" in line), "")
    if held:
        print(
            f"against {held}: difference in top-1 over all test clips and its 95 % "
            "interval over groups, paired; none below five groups"
        )
        relabelled = max(line["against"]["relabelled"] for line in lines if "against" in line)
        if relabelled:
            print(
                f"{relabelled} of {first['clips']} clips have another label in {held} and are not "
                "paired"
            )
    elif not pd.isna(first["frame_average"]):
        print(f"the frame average reaches {first['frame_average']:.3f} on these clips")


def _difference(paired: dict[str, Any] | None) -> str:
    import pandas as pd

    if paired is None:
        return ""
    if pd.isna(paired["low"]):
        return f"{paired['difference']:+.3f} (only {paired['groups']} groups)"
    return f"{paired['difference']:+.3f} ({paired['low']:+.2f} to {paired['high']:+.2f})"
