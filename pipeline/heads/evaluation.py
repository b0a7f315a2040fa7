"""The figures of a run: metrics, tables, and the baselines that a head must beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.heads import measures
from pipeline.heads.advice import advice
from pipeline.heads.clips import Clips
from pipeline.heads.fitting import Fitted, refits
from pipeline.heads.holdout import kept_out
from pipeline.heads.inference import predict_views
from pipeline.heads.late import fit_split
from pipeline.heads.leakage import NEAR_IDENTICAL, SAME_GROUP, leakage_table
from pipeline.heads.plan import resolve
from pipeline.heads.run_folder import class_probabilities, predictions_table
from pipeline.heads.saved import head_digest
from pipeline.heads.solving import choice_of
from pipeline.heads.source import Rows, group_names
from pipeline.plain import write_table

MISTAKES = 20
FRAME_AVERAGE = "frame_average"


def evaluate_run(out: Path, fitted: Fitted) -> dict[str, Any]:
    """Write predictions, per-class figures, mistakes and leaks; returns the metrics."""
    predictions = predictions_table(fitted.fit.clips, fitted.parts)
    write_table(predictions, out / "predictions.csv")
    write_class_tables(out, predictions, fitted.fit.clips.classes)
    leaks = leakage_table(fitted.fit.clips, fitted.fit.split, fitted.fit.statistics)
    write_table(leaks, out / "leakage.csv")
    return run_metrics(fitted, leaks)


def write_class_tables(out: Path, predictions: pd.DataFrame, classes: Sequence[str]) -> None:
    """Write `confusion.csv`, `classes.csv` and `mistakes.csv` of the predictions on test clips."""
    names = list(classes)
    tested = predictions[predictions["part"] == "test"]
    probabilities, labels = class_probabilities(tested, names)
    counts = measures.confusion(probabilities, labels)
    write_table(pd.DataFrame(counts, index=names, columns=names), out / "confusion.csv", index=True)
    write_table(measures.per_class(probabilities, labels, names), out / "classes.csv")
    write_table(confident_mistakes(predictions), out / "mistakes.csv")


def confident_mistakes(predictions: pd.DataFrame, most: int = MISTAKES) -> pd.DataFrame:
    """The wrong test predictions, the surest first: video_id, label, predicted, confidence.

    A clip that several repeats got wrong is listed once, as the surest of them.
    """
    wrong = predictions[
        (predictions["part"] == "test") & (predictions["label"] != predictions["predicted"])
    ]
    ordered = (
        wrong.sort_values("confidence", ascending=False).drop_duplicates("video_id").head(most)
    )
    return ordered[["video_id", "label", "predicted", "confidence"]]


def run_metrics(fitted: Fitted, leaks: pd.DataFrame) -> dict[str, Any]:
    """The metrics of a head trained on one split, as plain JSON values.

    leaks: what `leakage_table` returned for it
    """
    clips, split, settings = fitted.fit.clips, fitted.fit.split, fitted.fit.settings
    progress = fitted.progress
    figures: dict[str, Any] = {}
    for part, (at, probabilities) in fitted.parts.items():
        figures[part] = measures.measure(probabilities, clips.labels[at])
    test_at, probabilities = fitted.parts["test"]
    hits = measures.predicted_classes(probabilities) == clips.labels[test_at]
    figures["test"] |= measures.interval_record(hits, group_names(clips.table.iloc[test_at]))
    # Before the rest, because Ctrl-C here is recorded in `progress`.
    baseline = baselines(fitted)
    return {
        **figures,
        "baseline": baseline,
        "seconds": fitted.seconds,
        "clips_per_second": progress.clips_per_second,
        "head": settings.head,
        "digest": head_digest(fitted.fit.model, clips.classes),
        "parameters": int(fitted.fit.model.count_params()),
        "classes": len(clips.classes),
        "train_clips": len(split.train),
        **_refit_clips(fitted),
        "epochs": max(report.epoch for report in progress.history),
        "best_epoch": progress.best_epoch,
        "stopped": progress.stopped,
        "stopped_by": progress.stopped_by,
        "split": split.how,
        "fingerprint": clips.fingerprint,
        "left_out": left_out(clips, np.concatenate([split.train, split.validation, split.test])),
        "inference_clips_per_second": fitted.inference_clips_per_second,
        "leakage": int((leaks["why"] == NEAR_IDENTICAL).sum()),
        "straddling": int((leaks["why"] == SAME_GROUP).sum()),
        **choice_of(progress),
        **({"streams": list(fitted.streams)} if fitted.streams else {}),
        **advice(fitted),
        **_further_figures(fitted),
    }


def _refit_clips(fitted: Fitted) -> dict[str, int]:
    """`refit_clips`: how many clips a head that was trained once more saw; empty for others."""
    split = fitted.fit.split
    if fitted.progress.stopped or not refits(fitted.fit.settings, split):
        return {}
    return {"refit_clips": len(split.train) + len(split.validation)}


def _further_figures(fitted: Fitted) -> dict[str, Any]:
    """Figures that only some runs have: of a named test set, and the mean over views.

    With views, `test` and `validation` are the first store's alone, which is what `predict` reads;
    `test_views` is the mean of the probabilities over all of them.
    """
    clips, name = fitted.fit.clips, fitted.fit.split.test_set
    figures: dict[str, Any] = {}
    if name:
        figures["test_set"] = figures_of_test_set(clips, name, fitted.parts["test"])
    if clips.views:
        at, _ = fitted.parts["test"]
        average = predict_views(fitted.fit.model, clips, at)
        measured = measures.measure(average, clips.labels[at])
        figures["test_views"] = measured | {"views": 1 + len(clips.views)}
    return figures


def streams_over_folds(
    streams: Sequence[Mapping[str, Any]], folds: Sequence[Sequence[Mapping[str, Any]] | None]
) -> dict[str, Any]:
    """`streams`: each one's weight in the head of all clips and in the folds, and its mean top-1."""
    if not streams:
        return {}
    known = [fold for fold in folds if fold]
    joined = []
    for number, stream in enumerate(streams):
        each = [fold[number] for fold in known]
        joined.append(
            dict(stream)
            | {"top1": float(np.mean([fold["top1"] for fold in each]))}
            | {"weights": [fold["weight"] for fold in each]}
        )
    return {"streams": joined}


def figures_of_test_set(
    clips: Clips, name: str, part: tuple[Rows, measures.Probabilities]
) -> dict[str, Any]:
    """The figures on the clips of a named test set, with its name."""
    at, probabilities = part
    return {"name": name, **measures.measure(probabilities, clips.labels[at])}


def left_out(clips: Clips, used: Rows) -> dict[str, int]:
    """Why clips take no part in a run whose splits use the rows `used`: reason → number."""
    unused = ~np.isin(clips.rows, used)
    out = kept_out(clips.holdouts, clips.table)
    counts = {"kept_out": int((unused & out).sum()), "not_in_split": int((unused & ~out).sum())}
    return dict(clips.left_out) | {name: count for name, count in counts.items() if count}


def baselines(fitted: Fitted) -> dict[str, Any]:
    """Test top-1 of `majority`, `chance` and (for features) `frame_average` on the same split.

    The frame average is trained here by the same loop, with its own defaults and the same seed.
    Ctrl-C leaves it out and is recorded in the head's `progress`: the head itself is kept.
    """
    clips, split, settings = fitted.fit.clips, fitted.fit.split, fitted.fit.settings
    train_at, test_at = clips.positions(split.train), clips.positions(split.test)
    figures: dict[str, Any] = {
        "majority": measures.majority_baseline(clips.labels[train_at], clips.labels[test_at]),
        "chance": 1 / len(clips.classes),
    }
    if settings.head == FRAME_AVERAGE:
        return figures | {FRAME_AVERAGE: _test_top1(fitted)}
    if not settings.baselines or len(clips.shape) == 3 or fitted.progress.stopped:
        return figures
    plain = replace(
        settings,
        head=FRAME_AVERAGE,
        options={},
        lr=0.0,
        train_batch=0,
        precision="float32",
        ensemble=1,
    )
    try:
        average = fit_split(clips, split, resolve(plain, [split]))
    except KeyboardInterrupt as interrupt:
        fitted.progress.stop(interrupt)
        return figures
    if average.progress.stopped:
        fitted.progress.stopped = True
        fitted.progress.stopped_by = average.progress.stopped_by
        return figures
    return figures | {FRAME_AVERAGE: _test_top1(average)}


def _test_top1(fitted: Fitted) -> float:
    at, probabilities = fitted.parts["test"]
    return float((measures.predicted_classes(probabilities) == fitted.fit.clips.labels[at]).mean())
