"""Segments of time from the probabilities of steps, and from annotations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.heads.measures import predicted_classes
from pipeline.heads.source import Array, Float32, Float64
from pipeline.heads.steps.annotations import BACKGROUND
from pipeline.heads.steps.measures import Span, runs_of
from pipeline.heads.steps.videos import Video
from pipeline.plain import read_table

SEGMENTS, STEPS = "segments.csv", "steps.csv"
"""Files of a run: what happens when, by truth and prediction; and every step."""
TRUTH, PREDICTION = "truth", "prediction"
LIKELY = 0.5
"""From this probability on a label applies, where several may."""


def borders(times: Array, step_s: float) -> Float64:
    """(n + 1,) seconds at which each step begins, and the last ends: halfway between neighbours."""
    half = step_s / 2
    inner = (times[1:].astype(np.float64) + times[:-1]) / 2
    return np.concatenate([[max(0.0, float(times[0]) - half)], inner, [float(times[-1]) + half]])


def predicted_spans(
    video: Video, probabilities: Float32, classes: tuple[str, ...], *, multi_label: bool
) -> list[Span]:
    """What a head says happens when: spans in seconds with their mean probability, by their starts.

    probabilities: (steps, classes). Spans of `BACKGROUND` are left out; none reaches over a gap in the
    steps. With `multi_label` every label has spans of its own, which may overlap.
    """
    spans = []
    for first, last in video.stretches:
        edges = borders(video.times[first:last], video.step_s)
        part = probabilities[first:last]
        for label, start, end in labelled_runs(part, classes, multi_label=multi_label):
            score = float(part[start:end, classes.index(label)].mean())
            spans.append(
                Span(
                    video=video.file,
                    start=float(edges[start]),
                    end=float(edges[end]),
                    label=label,
                    score=score,
                )
            )
    return sorted(spans, key=lambda span: (span.start, span.end, span.label))


def labelled_runs(
    probabilities: Float32, classes: tuple[str, ...], *, multi_label: bool
) -> list[tuple[str, int, int]]:
    """(label, first step, step after the last) of every run of steps to which a label applies."""
    if not multi_label:
        names = np.array([*classes, ""], dtype=object)[predicted_classes(probabilities)]
        return [run for run in runs_of(names, without=BACKGROUND) if run[0]]
    runs = []
    for k, label in enumerate(classes):
        names = np.where(probabilities[:, k] >= LIKELY, label, "").astype(object)
        runs += [run for run in runs_of(names) if run[0]]
    return runs


def true_spans(video: Video) -> list[Span]:
    """The annotations of a video as spans, cut to the time of its steps; those outside are left out."""
    spans = []
    for first, last in video.stretches:
        edges = borders(video.times[first:last], video.step_s)
        for each in video.spans:
            start, end = max(each.start_s, float(edges[0])), min(each.end_s, float(edges[-1]))
            if start < end and each.label != BACKGROUND:
                spans.append(Span(video=video.file, start=start, end=end, label=each.label))
    return sorted(spans, key=lambda span: (span.start, span.end, span.label))


def read_segments(run: Path) -> pd.DataFrame:
    """A run's `segments.csv`: video_id, part, source (truth, prediction), start_s, end_s, label, …"""
    texts = dict.fromkeys(("video_id", "part", "source", "label"), str)
    return read_table(run / SEGMENTS, dtype=texts)
