"""Cross-validation by whole groups: the folds' mean is the figure, one model of all clips the head."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.errors import ConfigError
from pipeline.heads import evaluation, run_folder
from pipeline.heads.checkpoint import Checkpoint
from pipeline.heads.clips import Clips
from pipeline.heads.epochs import Callbacks
from pipeline.heads.fitting import Fitted
from pipeline.heads.late import fit_split
from pipeline.heads.leakage import leakage_table
from pipeline.heads.measures import interval_record
from pipeline.heads.plan import Plan
from pipeline.heads.plots import draw_plots
from pipeline.heads.saved import head_digest
from pipeline.heads.source import Array, group_names
from pipeline.heads.splits import Split, rows_of_test_set
from pipeline.plain import read_json, read_table, write_json, write_table

MARK = "fold.json"
"""Names the run that a fold's folder belongs to."""
AVERAGED = ("top1", "top5", "loss", "macro_f1", "ece")


def train_folds(plan: Plan, out: Path, callbacks: Callbacks, started: float) -> dict[str, Any]:
    """Train every fold, then `model.keras` on all clips for the folds' median best epoch.

    A repeat of the folds also has initial weights, orders and inner folds of its own, by its seed.
    A fold that is finished (its folder has `metrics.json`) is not trained again, so an interrupted
    cross-validation resumes with the fold that was interrupted. Raises `ConfigError` if a fold's
    folder is of another run than this.
    """
    clips, config, splits = plan.clips, plan.settings, plan.splits
    folders = [out / "folds" / f"{split.fold:02d}" for split in splits]
    for folder in folders:
        _require_own(folder, plan.identity.hash)
    for split, folder in zip(splits, folders, strict=True):
        if not (folder / run_folder.DONE).exists():
            _train_fold(plan, split, folder, callbacks)
    folds = [run_folder.read_metrics(folder) for folder in folders]
    refitted = _refit(plan, folds, callbacks)
    metrics = _mean_metrics(clips, splits, folds)
    if config.test_set:
        metrics["test_set"] = evaluation.figures_of_test_set(
            clips, config.test_set, refitted.parts["test"]
        )
    predictions = _write(out, clips, folders, refitted)
    hits = (predictions["label"] == predictions["predicted"]).to_numpy()
    # The mean over folds weighs small folds like large ones, the interval does not: both are given.
    metrics["test"] |= interval_record(hits, group_names(predictions))
    metrics["test"]["top1_pooled"] = float(hits.mean())
    if config.repeats > 1:
        metrics["repeats"] = _by_repeat(predictions, hits)
    metrics["epochs"] = max(report.epoch for report in refitted.progress.history)
    metrics["best_epoch"] = refitted.progress.best_epoch
    metrics |= evaluation.streams_over_folds(refitted.streams, [f.get("streams") for f in folds])
    if refitted.progress.choice:
        metrics["choice"] = {
            "folds": [fold["choice"] for fold in folds],
            "all": refitted.progress.choice,
        }
    metrics["digest"] = head_digest(refitted.fit.model, clips.classes)
    metrics["seconds"] = time.perf_counter() - started
    write_json(out / run_folder.DONE, metrics)
    draw_plots(out, refitted.fit.model)
    return metrics


def _by_repeat(predictions: pd.DataFrame, hits: Array) -> list[dict[str, Any]]:
    """Top-1 over the clips of each repeat, which are the same clips every time."""
    of = predictions["repeat"].to_numpy(np.int64)
    return [{"repeat": n, "top1": float(hits[of == n].mean())} for n in np.unique(of).tolist()]


def _require_own(folder: Path, identity: str) -> None:
    """Raise `ConfigError` if a finished fold was not trained by the run of this identity."""
    if not (folder / run_folder.DONE).exists():
        return
    other = f"{folder} is a fold of another run: start over with --overwrite"
    if read_json(folder / MARK, absent=other, damaged=other)["identity"] != identity:
        raise ConfigError(other)


def _train_fold(plan: Plan, split: Split, folder: Path, callbacks: Callbacks) -> None:
    clips = plan.clips
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / MARK, {"identity": plan.identity.hash, "fold": split.fold})
    identity = f"{plan.identity.hash} fold {split.fold}"
    checkpoint = Checkpoint(folder / run_folder.CHECKPOINT, identity)
    settings = replace(plan.settings, seed=split.seed) if split.repeat else plan.settings
    fitted = fit_split(clips, split, settings, checkpoint=checkpoint, callbacks=callbacks)
    if fitted.progress.stopped:
        # Half a fold would distort the mean: its state is kept, to be resumed later.
        checkpoint.save()
        raise KeyboardInterrupt(
            f"stopped in fold {split.fold + 1} of {split.folds}: resume later",
            fitted.progress.stopped_by,
        )
    run_folder.save_model(fitted.fit.model, folder / "model.keras")
    run_folder.write_history(folder / "history.csv", fitted.progress.history)
    table = run_folder.predictions_table(clips, {"test": fitted.parts["test"]})
    table.insert(4, "fold", split.fold)
    if plan.settings.repeats > 1:
        table.insert(5, "repeat", split.repeat)
    write_table(table, folder / "predictions.csv")
    leaks = leakage_table(clips, split, fitted.fit.statistics)
    write_table(leaks, folder / "leakage.csv")
    metrics = evaluation.run_metrics(fitted, leaks)
    if fitted.progress.stopped:
        checkpoint.save()
        raise KeyboardInterrupt(
            f"stopped in the frame average of fold {split.fold + 1}: resume later",
            fitted.progress.stopped_by,
        )
    write_json(folder / run_folder.DONE, metrics)
    checkpoint.remove()


def _refit(plan: Plan, folds: Sequence[dict[str, Any]], callbacks: Callbacks) -> Fitted:
    """The run's own head, fitted on the clips of all folds and tested on the named test set."""
    clips, config, splits = plan.clips, plan.settings, plan.splits
    everything = Split(
        train=np.unique(np.concatenate([split.test for split in splits])),
        validation=np.zeros(0, dtype=np.int64),
        test=rows_of_test_set(clips.table, clips.holdouts, config.test_set),
        how="all",
        seed=config.seed,
        fold=len(splits),
        folds=len(splits),
        test_set=config.test_set,
    )
    fitted = fit_split(
        clips, everything, config, callbacks=callbacks, last_epoch=_median_epochs(folds)
    )
    if fitted.progress.stopped:
        raise KeyboardInterrupt(
            "stopped in the last fit on all clips: resume later", fitted.progress.stopped_by
        )
    return fitted


def _median_epochs(folds: Sequence[dict[str, Any]]) -> int | list[int]:
    """The folds' median best epoch; of streams that were joined late, that of each."""

    def median(epochs: Sequence[float]) -> int:
        return max(1, round(float(np.median(epochs))))

    streams = [fold.get("streams", []) for fold in folds]
    if streams[0]:
        return [
            median([each["best_epoch"] for each in of_stream])
            for of_stream in zip(*streams, strict=True)
        ]
    return median([fold["best_epoch"] for fold in folds])


def _mean_metrics(
    clips: Clips, splits: Sequence[Split], folds: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """The folds' figures as those of one run: means, spreads, sums and medians."""

    def means(part: str, names: Sequence[str] = AVERAGED) -> dict[str, Any]:
        return {name: float(np.mean([fold[part][name] for fold in folds])) for name in names}

    first = folds[0]
    baselines = [name for name, top1 in first["baseline"].items() if top1 is not None]
    figures = {"test": means("test"), "validation": means("validation")}
    repeats = 1 + splits[-1].repeat
    for part in figures:
        figures[part]["clips"] = sum(fold[part]["clips"] for fold in folds) // repeats
    spread = {name: [fold["test"][name] for fold in folds] for name in AVERAGED}
    rates = ("clips_per_second", "inference_clips_per_second")
    tested = np.unique(np.concatenate([split.test for split in splits]))
    return {
        **figures,
        "spread": {name: float(np.std(values, ddof=1)) for name, values in spread.items()},
        "baseline": means("baseline", baselines),
        "folds": [fold["test"] | {"best_epoch": fold["best_epoch"]} for fold in folds],
        **{name: float(np.median([fold[name] for fold in folds])) for name in rates},
        **{name: first[name] for name in ("head", "parameters", "classes")},
        "train_clips": len(tested),
        "stopped": False,
        "split": splits[0].how,
        "fingerprint": clips.fingerprint,
        "left_out": evaluation.left_out(clips, tested),
        "leakage": sum(fold.get("leakage", 0) for fold in folds),
        **({"advice": first["advice"]} if first.get("advice") else {}),
    }


def _write(out: Path, clips: Clips, folders: Sequence[Path], refitted: Fitted) -> pd.DataFrame:
    """Write model and tables; returns the predictions over all folds."""
    run_folder.save_model(refitted.fit.model, out / "model.keras")
    run_folder.write_history(out / "history.csv", refitted.progress.history)
    tables = [run_folder.read_predictions(folder / "predictions.csv") for folder in folders]
    predictions = pd.concat(tables, ignore_index=True)
    write_table(predictions, out / "predictions.csv")
    evaluation.write_class_tables(out, predictions, clips.classes)
    found = [folder for folder in folders if (folder / "leakage.csv").exists()]
    leaks = [read_table(folder / "leakage.csv").assign(fold=folder.name) for folder in found]
    if leaks:
        write_table(pd.concat(leaks, ignore_index=True), out / "leakage.csv")
    return predictions
