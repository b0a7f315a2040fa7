"""Cross-validation over whole videos: the folds' mean is the figure, one model of all videos the head."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.errors import ConfigError
from pipeline.heads import run_folder
from pipeline.heads.checkpoint import Checkpoint
from pipeline.heads.epochs import Callbacks
from pipeline.heads.measures import interval_record
from pipeline.heads.plan import Plan
from pipeline.heads.plots import draw_plots
from pipeline.heads.saved import head_digest
from pipeline.heads.source import group_names
from pipeline.heads.splits import Split
from pipeline.heads.steps.evaluation import confusion_of, evaluate_steps
from pipeline.heads.steps.fitting import FittedSteps, fit_videos
from pipeline.heads.steps.segments import SEGMENTS, STEPS, read_segments
from pipeline.heads.steps.strips import draw_strips
from pipeline.heads.steps.videos import StepClips
from pipeline.plain import read_json, read_table, write_json, write_table

MARK = "fold.json"
COUNTS = ("steps", "videos", "clips")


def train_video_folds(
    plan: Plan, out: Path, callbacks: Callbacks, started: float
) -> dict[str, Any]:
    """Train every fold, then `model.keras` on all videos for the folds' median best epoch.

    A fold that is finished is not trained again. Raises `ConfigError` if its folder is another run's.
    """
    clips = plan.clips
    assert isinstance(clips, StepClips)
    folders = [out / "folds" / f"{split.fold:02d}" for split in plan.splits]
    for folder in folders:
        if (folder / run_folder.DONE).exists():
            _require_own(folder, plan.identity.hash)
    for split, folder in zip(plan.splits, folders, strict=True):
        if not (folder / run_folder.DONE).exists():
            _train_fold(plan, clips, split, folder, callbacks)
    folds = [run_folder.read_metrics(folder) for folder in folders]
    refitted = _refit(plan, clips, folds, callbacks)
    run_folder.save_model(refitted.head, out / "model.keras")
    run_folder.write_history(out / "history.csv", refitted.progress.history)
    steps = _gather(out, folders, clips)
    metrics = _mean_metrics(folds) | {
        "folds": [fold["test"] | {"best_epoch": fold["best_epoch"]} for fold in folds],
        "digest": head_digest(refitted.head, clips.classes),
        "train_clips": len(clips),
        "epochs": refitted.progress.epoch,
        "best_epoch": refitted.progress.best_epoch,
        "seconds": time.perf_counter() - started,
    }
    metrics["test"] |= _interval(steps, clips)
    write_json(out / run_folder.DONE, metrics)
    names = ["curves.png", "model.png"] if clips.multi_label else None
    draw_plots(out, refitted.head, *([names] if names else []))
    draw_strips(read_segments(out), out / "strips.png", clips.classes)
    return metrics


def _require_own(folder: Path, identity: str) -> None:
    other = f"{folder} is a fold of another run: start over with --overwrite"
    if read_json(folder / MARK, absent=other, damaged=other)["identity"] != identity:
        raise ConfigError(other)


def _train_fold(
    plan: Plan, clips: StepClips, split: Split, folder: Path, callbacks: Callbacks
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / MARK, {"identity": plan.identity.hash, "fold": split.fold})
    own = f"{plan.identity.hash} fold {split.fold}"
    checkpoint = Checkpoint(folder / run_folder.CHECKPOINT, own)
    fitted = fit_videos(clips, split, plan.settings, checkpoint=checkpoint, callbacks=callbacks)
    if fitted.progress.stopped:
        # Half a fold would distort the mean: its state is kept, to be resumed later.
        checkpoint.save()
        raise KeyboardInterrupt(
            f"stopped in fold {split.fold + 1} of {split.folds}: resume later",
            fitted.progress.stopped_by,
        )
    run_folder.save_model(fitted.head, folder / "model.keras")
    run_folder.write_history(folder / "history.csv", fitted.progress.history)
    write_json(folder / run_folder.DONE, evaluate_steps(folder, fitted))
    checkpoint.remove()


def _refit(
    plan: Plan, clips: StepClips, folds: Sequence[dict[str, Any]], callbacks: Callbacks
) -> FittedSteps:
    """The run's own head, fitted on the videos of all folds."""
    nothing, count = clips.rows[:0], len(plan.splits)
    everything = replace(
        plan.splits[0], train=clips.rows, validation=nothing, test=nothing, how="all", fold=count
    )
    epochs = max(1, round(float(np.median([fold["best_epoch"] for fold in folds]))))
    fitted = fit_videos(clips, everything, plan.settings, callbacks=callbacks, last_epoch=epochs)
    if fitted.progress.stopped:
        raise KeyboardInterrupt(
            "stopped in the last fit on all videos: resume later", fitted.progress.stopped_by
        )
    return fitted


def _gather(out: Path, folders: Sequence[Path], clips: StepClips) -> pd.DataFrame:
    """Write the folds' tables as one, of each only what it tests; returns all steps."""
    steps = pd.DataFrame()
    for name in ("predictions.csv", STEPS, SEGMENTS):
        texts = dict.fromkeys(("video_id", "group", "part", "label", "predicted", "source"), str)
        tables = [
            read_table(folder / name, dtype=texts).assign(fold=number)
            for number, folder in enumerate(folders)
        ]
        table = pd.concat(tables, ignore_index=True)
        table = table[table["part"] == "test"]
        write_table(table, out / name)
        if name == STEPS:
            steps = table
    if not clips.multi_label:
        write_table(confusion_of(steps, clips.classes), out / "confusion.csv", index=True)
    return steps


def _interval(steps: pd.DataFrame, clips: StepClips) -> dict[str, Any]:
    """The interval of the share of right steps over all videos, whole groups resampled."""
    groups = dict(zip(clips.table["video_id"], group_names(clips.table), strict=True))
    of = steps["video_id"].map(groups).to_numpy(dtype=object)
    return interval_record((steps["label"] == steps["predicted"]).to_numpy(), of)


def _mean_metrics(folds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The folds' figures as those of one run: means, spreads and sums."""
    first = folds[0]
    figures: dict[str, Any] = {}
    for part in ("test", "validation", "baseline"):
        names = [name for name, value in first[part].items() if isinstance(value, int | float)]
        figures[part] = {}
        for name in names:
            values = [fold[part][name] for fold in folds if fold[part][name] is not None]
            total = int(np.sum(values)) if name in COUNTS else float(np.mean(values))
            figures[part][name] = total
    figures["spread"] = {
        name: float(np.std([fold["test"][name] for fold in folds], ddof=1))
        for name in first["test"]
        if name not in COUNTS and all(isinstance(fold["test"][name], float) for fold in folds)
    }
    kept = (
        "head",
        "labels",
        "multi_label",
        "parameters",
        "classes",
        "split",
        "fingerprint",
        "left_out",
    )
    rates = ("clips_per_second", "inference_clips_per_second")
    return {
        **figures,
        **{name: first[name] for name in kept},
        **{name: float(np.median([fold[name] for fold in folds])) for name in rates},
        "stopped": False,
        "stopped_by": "",
    }
