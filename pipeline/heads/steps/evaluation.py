"""The figures and files of a run whose head labels every step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.heads import measures
from pipeline.heads.saved import head_digest
from pipeline.heads.source import Float32, Rows, group_names
from pipeline.heads.steps.annotations import BACKGROUND
from pipeline.heads.steps.fitting import FittedSteps, loss_and_accuracy
from pipeline.heads.steps.measures import (
    Span,
    detection,
    overlap_with_truth,
    segmentation,
    several,
)
from pipeline.heads.steps.segments import (
    PREDICTION,
    SEGMENTS,
    STEPS,
    TRUTH,
    predicted_spans,
    true_spans,
)
from pipeline.heads.steps.videos import StepClips, Video
from pipeline.plain import write_table


def evaluate_steps(out: Path, fitted: FittedSteps) -> dict[str, Any]:
    """Write predictions, segments and per-class figures of a run; returns its metrics."""
    clips = _clips(fitted)
    figures, lines, spans, steps = {}, [], [], []
    for part, (at, probabilities) in fitted.parts.items():
        figures[part] = step_figures(clips, at, probabilities)
        for i, p in zip(at, probabilities, strict=True):
            lines.append(_video_line(clips, int(i), part, p))
            steps.append(_steps_table(clips, clips.videos[i], part, p))
            for source, own in (
                (TRUTH, true_spans(clips.videos[i])),
                (PREDICTION, _predicted(clips, clips.videos[i], p)),
            ):
                spans += [(span.video, part, source, *_values(span)) for span in own]
    write_table(pd.DataFrame(lines), out / "predictions.csv")
    write_table(pd.concat(steps, ignore_index=True), out / STEPS)
    names = ["video_id", "part", "source", "start_s", "end_s", "label", "score"]
    write_table(pd.DataFrame(spans, columns=names), out / SEGMENTS)
    if not clips.multi_label:
        _write_classes(out, clips, *fitted.parts["test"])
    return _metrics(fitted, figures)


def step_figures(
    clips: StepClips, positions: Rows, probabilities: Sequence[Float32]
) -> dict[str, Any]:
    """The published figures of predicted videos, and those that every head has, over steps.

    `overlap` is the intersection over union of the steps of each label, averaged over labels that occur
    (`BACKGROUND` does not count). Every stretch of a video without a gap counts as a video of its own.
    """
    videos = [clips.videos[i] for i in positions]
    loss, accuracy = loss_and_accuracy(clips, positions, list(probabilities))
    sizes = {"steps": sum(map(len, videos)), "videos": len(videos), "clips": len(videos)}
    predicted = [
        span
        for video, p in zip(videos, probabilities, strict=True)
        for span in _predicted(clips, video, p)
    ]
    found = detection(predicted, [span for video in videos for span in true_spans(video)])
    p = np.concatenate([np.zeros((0, len(clips.classes)), np.float32), *probabilities])
    targets = np.concatenate([p[:0] > 0, *(video.targets for video in videos)])
    if clips.multi_label:
        return {"top1": accuracy, **several(p, targets), "loss": loss, **found, **sizes}
    names = np.array([*clips.classes, ""], dtype=object)
    said, true = [], []
    for video, own in zip(videos, probabilities, strict=True):
        for first, last in video.stretches:
            said.append(names[measures.predicted_classes(own[first:last])])
            true.append(names[video.targets[first:last].argmax(axis=1)])
    labels = targets.argmax(axis=1)
    shares = overlap_with_truth(measures.predicted_classes(p), labels, len(clips.classes))
    counted = [
        share for share, name in zip(shares, clips.classes, strict=True) if name != BACKGROUND
    ]
    return {
        **measures.measure(p, labels),
        **segmentation(said, true, background=BACKGROUND),
        **found,
        "overlap": float(np.nanmean(counted)) if np.isfinite(counted).any() else float("nan"),
        **sizes,
    }


def _metrics(fitted: FittedSteps, figures: dict[str, dict[str, Any]]) -> dict[str, Any]:
    clips, split, progress = _clips(fitted), fitted.fit.split, fitted.progress
    test_at, probabilities = fitted.parts["test"]
    return {
        "test": figures["test"] | _interval(clips, test_at, probabilities),
        "validation": figures["validation"],
        "baseline": _baseline(clips, clips.positions(split.train), test_at),
        "seconds": fitted.seconds,
        "clips_per_second": progress.clips_per_second,
        "head": fitted.fit.settings.head,
        "labels": "steps",
        "multi_label": clips.multi_label,
        "digest": head_digest(fitted.head, clips.classes),
        "parameters": int(fitted.head.count_params()),
        "classes": len(clips.classes),
        "train_clips": len(split.train),
        "epochs": max(report.epoch for report in progress.history),
        "best_epoch": progress.best_epoch,
        "stopped": progress.stopped,
        "stopped_by": progress.stopped_by,
        "split": split.how,
        "fingerprint": clips.fingerprint,
        "left_out": dict(clips.left_out),
        "inference_clips_per_second": fitted.steps_per_second,
    }


def _interval(clips: StepClips, at: Rows, probabilities: Sequence[Float32]) -> dict[str, Any]:
    """The interval of the share of right steps, whole groups of videos resampled."""
    groups = group_names(clips.table.iloc[at])
    hits, of = [], []
    for i, group, p in zip(at, groups, probabilities, strict=True):
        targets = clips.videos[i].targets
        if clips.multi_label:
            hits.append(((p >= 0.5) == targets).mean(axis=1))
        else:
            hits.append((measures.predicted_classes(p) == targets.argmax(axis=1)).astype(float))
        of += [group] * len(p)
    return measures.interval_record(np.concatenate(hits), np.array(of, dtype=object))


def _baseline(clips: StepClips, train: Rows, test: Rows) -> dict[str, float]:
    """What the commonest label alone scores, and chance; nothing where several labels may apply."""
    if clips.multi_label:
        return {}
    labels = [
        np.concatenate([clips.videos[i].targets.argmax(axis=1) for i in at]) for at in (train, test)
    ]
    return {
        "majority": measures.majority_baseline(labels[0], labels[1]),
        "chance": 1 / len(clips.classes),
    }


def _video_line(clips: StepClips, position: int, part: str, p: Float32) -> dict[str, Any]:
    """A video's line of `predictions.csv`: its figures."""
    line = clips.table.iloc[position]
    names = ("top1", "edit", "f1@10", "f1@25", "f1@50", "map", "steps")
    own = step_figures(clips, np.array([position]), [p])
    head = {name: line[name] for name in ("video_id", "group", "label")}
    return head | {"part": part, "predicted": ""} | {n: own[n] for n in names if n in own}


def _steps_table(clips: StepClips, video: Video, part: str, p: Float32) -> pd.DataFrame:
    names = np.array([*clips.classes, ""], dtype=object)
    true, said = names[video.targets.argmax(axis=1)], names[measures.predicted_classes(p)]
    if clips.multi_label:
        true, said = (
            np.array(["|".join(names[:-1][row]) for row in which], dtype=object)
            for which in (video.targets, p >= 0.5)
        )
    columns: dict[str, Any] = {
        "video_id": video.file,
        "part": part,
        "time_s": np.round(video.times.astype(float), 3),
        "label": true,
        "predicted": said,
    }
    columns |= {f"p:{name}": np.round(p[:, k], 5) for k, name in enumerate(clips.classes)}
    return pd.DataFrame(columns)


def _write_classes(out: Path, clips: StepClips, at: Rows, probabilities: Sequence[Float32]) -> None:
    """Write `confusion.csv` and `classes.csv`, over the steps of the test videos."""
    p = np.concatenate(probabilities)
    labels = np.concatenate([clips.videos[i].targets.argmax(axis=1) for i in at])
    names = list(clips.classes)
    counts = pd.DataFrame(measures.confusion(p, labels), index=names, columns=names)
    write_table(counts, out / "confusion.csv", index=True)
    table = measures.per_class(p, labels, names).rename(columns={"clips": "steps"})
    overlap = overlap_with_truth(measures.predicted_classes(p), labels, len(names))
    write_table(table.assign(overlap=overlap), out / "classes.csv")


def confusion_of(steps: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """True by predicted class, counts, of the lines of `steps.csv`."""
    counts = pd.crosstab(steps["label"], steps["predicted"])
    return counts.reindex(index=list(classes), columns=list(classes), fill_value=0)


def _predicted(clips: StepClips, video: Video, p: Float32) -> list[Span]:
    return predicted_spans(video, p, clips.classes, multi_label=clips.multi_label)


def _values(span: Span) -> tuple[float, float, str, float]:
    return round(span.start, 3), round(span.end, 3), span.label, round(span.score, 4)


def _clips(fitted: FittedSteps) -> StepClips:
    clips = fitted.fit.clips
    assert isinstance(clips, StepClips)
    return clips
