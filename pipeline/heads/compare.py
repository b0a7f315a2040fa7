"""Runs side by side: a leaderboard per test set, and whether a lead is more than luck."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.drawing import new_figure, save_figure
from pipeline.errors import ConfigError
from pipeline.heads import run_folder
from pipeline.heads.measures import bootstrap_interval
from pipeline.heads.source import Array, group_names
from pipeline.heads.steps.measures import STEP_FIGURES
from pipeline.plain import json_digest, write_table


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Leaderboard:
    """Runs that were tested on the same clips of one spec, the best first."""

    test_set: str
    table: pd.DataFrame

    def __repr__(self) -> str:
        return f"Leaderboard(test_set={self.test_set[:12]}, runs={len(self.table)})"


def leaderboards(runs: Path | str) -> list[Leaderboard]:
    """One board per test set found under `runs`, the largest first.

    Runs of different test clips, labels, folds or specs are never ranked in one list: their figures
    do not compare. But runs on joined streams are ranked with those on each of the streams: the join has
    checked that these hold the same clips. Unfinished runs are left out. Raises `ConfigError` where no
    run is finished.
    """
    folders = finished_runs(Path(runs))
    if not folders:
        raise ConfigError(f"{runs} holds no finished run: train a head first")
    sets: dict[str, list[dict[str, Any]]] = {}
    for key, folder in _keys(folders):
        sets.setdefault(key, []).append(_line(folder))
    boards = []
    for key, lines in sets.items():
        table = pd.DataFrame(lines)
        table = table.sort_values("top1", ascending=False, kind="stable", ignore_index=True)
        boards.append(Leaderboard(test_set=key, table=table))
    return sorted(boards, key=lambda board: -len(board.table))


def finished_runs(runs: Path) -> list[Path]:
    """The folders of finished runs under `runs`, each once: a link to one (`accepted`) is not another.

    Hidden folders, which hold a run that is to replace another, do not count.
    """
    runs_by_path: dict[Path, Path] = {}
    for folder in sorted(runs.glob("*"), key=lambda folder: (folder.is_symlink(), folder.name)):
        if not folder.name.startswith(".") and (folder / run_folder.DONE).exists():
            runs_by_path.setdefault(folder.resolve(), folder)
    return sorted(runs_by_path.values())


def features_of(run: Path) -> frozenset[str]:
    """The fingerprints of what a run reads: its own, and those of the streams that it joins."""
    config = run_folder.read_config(run)
    streams = (str(each["fingerprint"]) for each in config.get("streams", ()))
    return frozenset([str(config["fingerprint"]), *streams])


def _keys(folders: Sequence[Path]) -> list[tuple[str, Path]]:
    """What a run is ranked under: its test clips and spec, of joined streams with all that they link."""
    read = {folder: features_of(folder) for folder in folders}
    joins = [folder for folder, features in read.items() if len(features) > 1]
    tested = {folder: _tested_key(folder) for folder in folders} if joins else {}
    linked: list[tuple[str, set[str]]] = []
    for join in joins:
        known = set(read[join])
        for other in [each for each in linked if each[0] == tested[join] and each[1] & known]:
            known |= other[1]
            linked.remove(other)
        linked.append((tested[join], known))
    keys = []
    for folder in folders:
        links = [known for key, known in linked if key == tested[folder] and known & read[folder]]
        key = json_digest([sorted(links[0]), tested[folder]]) if links else test_set_key(folder)
        keys.append((key, folder))
    return keys


def _tested_key(run: Path) -> str:
    """A hash of each fold's test clips with their labels."""
    return json_digest(clips_tested(run))


def test_set_key(run: Path) -> str:
    """A hash of what a run was tested on: the spec, and each fold's test clips with their labels."""
    return json_digest([run_folder.read_config(run)["fingerprint"], *clips_tested(run)])


def clips_tested(run: Path) -> list[list[list[str]]]:
    """[id, label] of each fold's test clips, by id."""
    labels = _tested(run)["label"].groupby(level="video_id").first()
    return [[[name, str(labels.get(name, ""))] for name in fold] for fold in _test_ids(run)]


def paired_difference(
    first: Path, second: Path, *, seed: int = 0, same_features: bool = True
) -> dict[str, Any]:
    """How much better `first` is than `second` in top-1, with its 95 % interval over groups.

    All test clips count alike, of all folds: the difference need not be that of two means over folds.
    Where folds are repeated, a clip is paired with itself in the same repeat, and whole groups are
    drawn with all repeats of their clips; only repeats that both have are paired.
    `low` and `high` are NaN where the test has fewer than five groups (`groups`).
    Clips are paired by id and label: `clips` says how many clips make pairs, `relabelled` how many
    have another label in the other run, and so make none. same_features: whether both must have been
    trained on features of one spec; False compares streams of the same clips. Raises `ConfigError`
    where the runs were not tested on the same clips.
    """
    folds = [_test_ids(run) for run in (first, second)]
    shared = min(map(len, folds))
    strangers = same_features and not _same_clips(first, second)
    if strangers or folds[0][:shared] != folds[1][:shared]:
        raise ConfigError(
            f"{first.name} and {second.name} were not tested on the same clips: train both on one "
            "store with one split and seed"
        )
    other = _tested(second)[["label", "predicted"]].add_suffix("_second")
    pairs = _tested(first).join(other, how="inner")
    same = pairs["label"] == pairs["label_second"]
    if not same.any():
        raise ConfigError(
            f"no test clip has the same label in {first.name} and {second.name}: train both on one "
            "store"
        )
    paired = pairs[same].sort_index().reset_index()
    hits, rival = (
        (paired[column] == paired["label"]).to_numpy(float)
        for column in ("predicted", "predicted_second")
    )
    difference: Array = hits - rival
    groups = group_names(paired)
    low, high = bootstrap_interval(difference, groups, seed=seed)
    return {
        "difference": float(difference.mean()),
        "low": low,
        "high": high,
        "groups": len(set(groups)),
        "clips": int(paired["video_id"].nunique()),
        "relabelled": int(pairs.index.get_level_values("video_id")[~same].nunique()),
    }


def _same_clips(first: Path, second: Path) -> bool:
    """Whether equal ids are the same clips in both runs: they share features, or all hashes are equal."""
    if features_of(first) & features_of(second):
        return True
    mine, theirs = (run_folder.read_clips(run).set_index("video_id") for run in (first, second))
    ids = mine.index.intersection(theirs.index)
    known = mine.loc[ids, "sha256"].astype(str), theirs.loc[ids, "sha256"].astype(str)
    return bool(len(ids) and (known[0] != "").all() and (known[0] == known[1]).all())


def confused_pairs(run: Path, most: int) -> list[tuple[str, str, int, list[str]]]:
    """(class, predicted class, clips, their ids with the surest first) that a run confuses most.

    A clip that several repeats of the folds got wrong alike counts once.
    """
    table = run_folder.read_predictions(run / "predictions.csv", probabilities=False)
    wrong = table[(table["part"] == "test") & (table["label"] != table["predicted"])]
    wrong = wrong.sort_values("confidence", ascending=False, kind="stable")
    wrong = wrong.drop_duplicates(["video_id", "predicted"])
    pairs = [
        (str(label), str(predicted), len(part), part["video_id"].astype(str).tolist())
        for (label, predicted), part in wrong.groupby(["label", "predicted"], sort=True)
    ]
    return sorted(pairs, key=lambda pair: -pair[2])[:most]


def write_leaderboards(boards: Sequence[Leaderboard], out: Path) -> list[Path]:
    """`leaderboard.csv` and `leaderboard.png` in `out` (numbered where there are several)."""
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for number, board in enumerate(boards, start=1):
        table = out / ("leaderboard.csv" if number == 1 else f"leaderboard-{number}.csv")
        picture = table.with_suffix(".png")
        before = table.read_bytes() if table.exists() and picture.exists() else None
        write_table(board.table, table)
        if table.read_bytes() != before:  # drawing takes longer than all else
            _plot(board, picture)
        written += [table, picture]
    return written


def _tested(run: Path) -> pd.DataFrame:
    """A run's predictions on its test clips, indexed by `video_id` and `repeat` (0, or of the folds)."""
    table = run_folder.read_predictions(run / "predictions.csv", probabilities=False)
    table = table[table["part"] == "test"]
    return table.assign(repeat=table.get("repeat", 0)).set_index(["video_id", "repeat"])


def _test_ids(run: Path) -> list[list[str]]:
    records = run_folder.split_records(run_folder.read_config(run))
    return [sorted(map(str, record["test"]["video_ids"])) for record in records]


def _line(folder: Path) -> dict[str, Any]:
    metrics = run_folder.read_metrics(folder)
    test = metrics["test"]
    config = run_folder.read_config(folder)
    streams = [str(each["name"]) for each in config.get("streams", ())]
    per_step = metrics.get("labels") == "steps"
    return {
        "run": folder.name,
        "head": metrics["head"],
        "features": "+".join(streams) or str(config["spec"].get("backbone", "")),
        "top1": test["top1"],
        "spread": metrics.get("spread", {}).get("top1", np.nan),
        "top5": test["top5"],
        "macro_f1": test["macro_f1"],
        "validation_top1": metrics["validation"]["top1"],
        "frame_average": metrics["baseline"].get("frame_average", np.nan),
        "parameters": metrics["parameters"],
        "train_seconds": metrics["seconds"],
        "inference_clips_per_second": metrics.get("inference_clips_per_second", np.nan),
        "split": metrics["split"],
        "fingerprint": config["fingerprint"][:12],
        "clips": test["clips"],
        **({name: test.get(name, np.nan) for name in STEP_FIGURES} if per_step else {}),
    }


def _plot(board: Leaderboard, path: Path) -> None:
    from pipeline.heads.plots import BLUE, GREY

    table = board.table.iloc[::-1]
    figure = new_figure(8, 1.2 + 0.32 * len(table))
    axis = figure.subplots()
    axis.barh(table["run"], table["top1"], xerr=table["spread"].fillna(0), color=BLUE, ecolor=GREY)
    for i, value in enumerate(table["top1"]):
        axis.text(0.01, i, f"{value:.2f}", va="center", color="white", fontsize=9)
    known = table["frame_average"].dropna()
    if len(known):
        axis.axvline(known.max(), color=GREY, linestyle=":", label="frame average")
        axis.legend(frameon=False, fontsize=8)
    axis.set_xlim(0, 1)
    axis.set_xlabel("test top-1 (bars: spread over folds)")
    save_figure(figure, path, dpi=120)
