"""What a run says of itself: figures and predictions, beside honest baselines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pipeline.heads.baselines import baselines
from pipeline.heads.clips import Clips
from pipeline.heads.config import TrainConfig
from pipeline.heads.digest import head_digest
from pipeline.heads.fitting import predict_views
from pipeline.heads.gate import straddling
from pipeline.heads.leakage import leakage_table, near_identical
from pipeline.heads.measures import (
    Probabilities,
    confusion,
    interval_record,
    measure,
    per_class,
    predicted_classes,
)
from pipeline.heads.record import left_out
from pipeline.heads.run_folder import predictions_table
from pipeline.heads.source import Rows
from pipeline.heads.splits import Split
from pipeline.heads.units import group_names
from pipeline.plain import write_table

if TYPE_CHECKING:
    from pipeline.heads.training import Fitted

MISTAKES = 20


def evaluate_run(
    out: Path, clips: Clips, split: Split, config: TrainConfig, fitted: Fitted
) -> dict[str, Any]:
    """Write predictions, per-class figures and mistakes; returns the metrics."""
    predictions = predictions_table(clips, fitted.parts)
    write_table(predictions, out / "predictions.csv")
    test_at, probabilities = fitted.parts["test"]
    labels = clips.labels[test_at]
    counts = confusion(probabilities, labels)
    names = list(clips.classes)
    write_table(pd.DataFrame(counts, index=names, columns=names), out / "confusion.csv", index=True)
    write_table(per_class(probabilities, labels, names), out / "classes.csv")
    write_table(confident_mistakes(predictions), out / "mistakes.csv")
    write_table(leakage_table(clips, split), out / "leakage.csv")
    return run_metrics(clips, split, config, fitted)


def run_metrics(clips: Clips, split: Split, config: TrainConfig, fitted: Fitted) -> dict[str, Any]:
    """The metrics of one trained head on its split, as plain JSON values."""
    train_at = clips.positions(split.train)
    figures: dict[str, Any] = {}
    for part, (at, probabilities) in fitted.parts.items():
        figures[part] = measure(probabilities, clips.labels[at])
    test_at, probabilities = fitted.parts["test"]
    hits = predicted_classes(probabilities) == clips.labels[test_at]
    figures["test"] |= interval_record(hits, group_names(clips.table.iloc[test_at]))
    progress = fitted.progress
    # First, because it may be stopped too.
    beside = baselines(clips, split, config, figures["test"]["top1"], progress)
    return {
        **figures,
        "baseline": beside,
        "seconds": fitted.seconds,
        "clips_per_second": progress.clips_per_second,
        "head": config.head,
        "digest": head_digest(fitted.model, clips.classes),
        "parameters": int(fitted.model.count_params()),
        "classes": len(clips.classes),
        "train_clips": len(train_at),
        "epochs": progress.epoch,
        "best_epoch": progress.best_epoch,
        "stopped": progress.stopped,
        "stopped_by": progress.stopped_by,
        "split": split.how,
        "fingerprint": clips.fingerprint,
        "left_out": left_out(clips, np.concatenate([split.train, split.validation, split.test])),
        "inference_clips_per_second": fitted.inference_clips_per_second,
        "leakage": len(near_identical(clips, split)),
        "straddling": len(straddling(clips, split)),
        **_beside(clips, split, fitted),
    }


def _beside(clips: Clips, split: Split, fitted: Fitted) -> dict[str, Any]:
    """Figures that only some runs have: of a named test set, and of views averaged.

    With views, `test` and `validation` are the first store's alone, which is what `predict` reads;
    `test_views` is the mean of the probabilities over all of them.
    """
    found: dict[str, Any] = {}
    if split.test_set:
        found["test_set"] = figures_of_test_set(clips, split.test_set, fitted.parts["test"])
    if clips.views:
        at, _ = fitted.parts["test"]
        average = predict_views(fitted.model, clips, at)
        found["test_views"] = measure(average, clips.labels[at]) | {"views": 1 + len(clips.views)}
    return found


def figures_of_test_set(
    clips: Clips, name: str, part: tuple[Rows, Probabilities]
) -> dict[str, Any]:
    """The figures on the clips of a named test set, with its name."""
    at, probabilities = part
    return {"name": name, **measure(probabilities, clips.labels[at])}


def confident_mistakes(predictions: pd.DataFrame, most: int = MISTAKES) -> pd.DataFrame:
    """The wrong test predictions, the surest first: video_id, label, predicted, confidence."""
    wrong = predictions[
        (predictions["part"] == "test") & (predictions["label"] != predictions["predicted"])
    ]
    ordered = wrong.sort_values("confidence", ascending=False).head(most)
    return ordered[["video_id", "label", "predicted", "confidence"]]
