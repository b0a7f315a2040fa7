"""Cross-validation by whole groups: the folds' mean is the figure, one model of all clips the head."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.errors import ConfigError
from pipeline.heads.checkpoint import Checkpoint
from pipeline.heads.clips import Clips
from pipeline.heads.config import TrainConfig
from pipeline.heads.digest import head_digest
from pipeline.heads.evaluation import confident_mistakes, figures_of_test_set, run_metrics
from pipeline.heads.fitting import OnEpoch, Stop
from pipeline.heads.leakage import leakage_table
from pipeline.heads.measures import confusion, interval_record, per_class
from pipeline.heads.pictures import Drawn, draw_pictures
from pipeline.heads.plan import Plan
from pipeline.heads.record import left_out
from pipeline.heads.run_folder import (
    CHECKPOINT,
    DONE,
    predictions_table,
    read_predictions,
    write_history,
    write_json,
)
from pipeline.heads.splits import Split, rows_of_test_set
from pipeline.heads.training import Fitted, fit_split, save_model
from pipeline.heads.units import group_names
from pipeline.plain import read_table, write_table

MARK = "fold.json"
"""Names the run that a fold's folder belongs to."""
AVERAGED = ("top1", "top5", "loss", "macro_f1", "ece")


def train_folds(
    plan: Plan, out: Path, on_epoch: OnEpoch | None, stop: Stop | None
) -> dict[str, Any]:
    """Train every fold, then `model.keras` on all clips for the folds' median best epoch.

    A fold that is finished (its folder has `metrics.json`) is not trained again, so an interrupted
    cross-validation goes on with the fold that it was at. Raises `ConfigError` where a fold's folder
    is of another run than this.
    """
    started = time.perf_counter()
    clips, config, splits = plan.clips, plan.settings, plan.splits
    folders = [out / "folds" / f"{split.fold:02d}" for split in splits]
    for folder in folders:
        _require_own(folder, plan.identity.hash)
    for split, folder in zip(splits, folders, strict=True):
        if not (folder / DONE).exists():
            _train_fold(plan, split, folder, on_epoch, stop)
    done = [json.loads((folder / DONE).read_text(encoding="utf-8")) for folder in folders]
    refitted = _refit(clips, config, splits, done, on_epoch, stop)
    metrics = _summary(clips, splits, done)
    if config.test_set:
        metrics["test_set"] = figures_of_test_set(clips, config.test_set, refitted.parts["test"])
    predictions, counts = _write(out, clips, folders, refitted)
    hits = (predictions["label"] == predictions["predicted"]).to_numpy()
    # The mean over folds weighs small folds like large ones: what the interval is about is said too.
    metrics["test"] |= interval_record(hits, group_names(predictions))
    metrics["test"]["top1_pooled"] = float(hits.mean())
    metrics |= {"epochs": refitted.progress.epoch, "best_epoch": refitted.progress.best_epoch}
    metrics["digest"] = head_digest(refitted.model, clips.classes)
    metrics["seconds"] = time.perf_counter() - started
    write_json(out / DONE, metrics)
    progress = refitted.progress
    drawn = Drawn(
        model=refitted.model,
        history=progress.history,
        best_epoch=progress.best_epoch,
        counts=counts,
        classes=clips.classes,
    )
    draw_pictures(out, drawn)
    return metrics


def _require_own(folder: Path, identity: str) -> None:
    """Raise `ConfigError` if a finished fold was not trained by the run of this identity."""
    if not (folder / DONE).exists():
        return
    mark = folder / MARK
    if not mark.exists() or json.loads(mark.read_text(encoding="utf-8"))["identity"] != identity:
        raise ConfigError(f"{folder} is a fold of another run: start over with --overwrite")


def _train_fold(
    plan: Plan, split: Split, folder: Path, on_epoch: OnEpoch | None, stop: Stop | None
) -> None:
    clips, config = plan.clips, plan.settings
    folder.mkdir(parents=True, exist_ok=True)
    split.save(folder / "split.json")
    write_json(folder / MARK, {"identity": plan.identity.hash, "fold": split.fold})
    checkpoint = Checkpoint(folder / CHECKPOINT, f"{plan.identity.hash} fold {split.fold}")
    fitted = fit_split(clips, split, config, checkpoint=checkpoint, on_epoch=on_epoch, stop=stop)
    if fitted.progress.stopped:
        # Half a fold would spoil the mean: keep its state and go on with it another time.
        checkpoint.save()
        raise KeyboardInterrupt(
            f"stopped in fold {split.fold + 1} of {split.folds}: resume later",
            fitted.progress.stopped_by,
        )
    save_model(fitted.model, folder / "model.keras")
    write_history(folder / "history.csv", fitted.progress.history)
    table = predictions_table(clips, {"test": fitted.parts["test"]})
    table.insert(4, "fold", split.fold)
    write_table(table, folder / "predictions.csv")
    write_table(leakage_table(clips, split), folder / "leakage.csv")
    metrics = run_metrics(clips, split, config, fitted)
    if fitted.progress.stopped:
        checkpoint.save()
        raise KeyboardInterrupt(
            f"stopped in the frame average of fold {split.fold + 1}: resume later",
            fitted.progress.stopped_by,
        )
    write_json(folder / DONE, metrics)
    checkpoint.remove()


def _refit(
    clips: Clips,
    config: TrainConfig,
    splits: Sequence[Split],
    done: Sequence[dict[str, Any]],
    on_epoch: OnEpoch | None,
    stop: Stop | None,
) -> Fitted:
    """The run's own head, fitted on the clips of all folds and tested on the named test set."""
    epochs = max(1, round(float(np.median([fold["best_epoch"] for fold in done]))))
    everything = Split(
        train=np.sort(np.concatenate([split.test for split in splits])),
        validation=np.zeros(0, dtype=np.int64),
        test=rows_of_test_set(clips.table, clips.holdouts, config.test_set),
        how="all",
        seed=config.seed,
        fold=len(splits),
        folds=len(splits),
        test_set=config.test_set,
    )
    fitted = fit_split(clips, everything, config, on_epoch=on_epoch, stop=stop, last_epoch=epochs)
    if fitted.progress.stopped:
        raise KeyboardInterrupt(
            "stopped in the last fit on all clips: resume later", fitted.progress.stopped_by
        )
    return fitted


def _summary(
    clips: Clips, splits: Sequence[Split], done: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    def mean(part: str, name: str) -> float:
        return float(np.mean([fold[part][name] for fold in done]))

    test: dict[str, Any] = {name: mean("test", name) for name in AVERAGED}
    test["clips"] = int(sum(fold["test"]["clips"] for fold in done))
    spread = {
        name: float(np.std([fold["test"][name] for fold in done], ddof=1)) for name in AVERAGED
    }
    validation: dict[str, Any] = {name: mean("validation", name) for name in AVERAGED}
    validation["clips"] = int(sum(fold["validation"]["clips"] for fold in done))
    names = [name for name in done[0]["baseline"] if done[0]["baseline"][name] is not None]
    first = done[0]
    return {
        "test": test,
        "spread": spread,
        "validation": validation,
        "baseline": {name: mean("baseline", name) for name in names},
        "folds": [fold["test"] | {"best_epoch": fold["best_epoch"]} for fold in done],
        "clips_per_second": float(np.median([fold["clips_per_second"] for fold in done])),
        "head": first["head"],
        "parameters": first["parameters"],
        "inference_clips_per_second": float(
            np.median([fold["inference_clips_per_second"] for fold in done])
        ),
        "classes": first["classes"],
        "train_clips": sum(len(split.test) for split in splits),
        "stopped": False,
        "split": splits[0].how,
        "fingerprint": clips.fingerprint,
        "left_out": left_out(clips, np.concatenate([split.test for split in splits])),
        "leakage": sum(fold.get("leakage", 0) for fold in done),
    }


def _write(
    out: Path, clips: Clips, folders: Sequence[Path], refitted: Fitted
) -> tuple[pd.DataFrame, npt.NDArray[np.int64]]:
    """Write model and tables; returns (predictions, (classes, classes) counts) over all folds."""
    save_model(refitted.model, out / "model.keras")
    predictions = pd.concat(
        [read_predictions(folder / "predictions.csv") for folder in folders], ignore_index=True
    )
    write_table(predictions, out / "predictions.csv")
    names = list(clips.classes)
    probabilities = predictions[[f"p:{name}" for name in names]].to_numpy(dtype=np.float32)
    index = {name: i for i, name in enumerate(names)}
    labels = np.array([index[str(name)] for name in predictions["label"]], dtype=np.int64)
    counts = confusion(probabilities, labels)
    write_table(pd.DataFrame(counts, index=names, columns=names), out / "confusion.csv", index=True)
    write_table(per_class(probabilities, labels, names), out / "classes.csv")
    write_table(confident_mistakes(predictions), out / "mistakes.csv")
    leaks = [
        read_table(f / "leakage.csv").assign(fold=f.name)
        for f in folders
        if (f / "leakage.csv").exists()
    ]
    if leaks:
        write_table(pd.concat(leaks, ignore_index=True), out / "leakage.csv")
    write_history(out / "history.csv", refitted.progress.history)
    return predictions, counts
