"""Figures of predicted segments, as published: pure functions of labels, spans and scores.

Frame accuracy, edit score and F1 at overlaps are those of C. Lea et al., Temporal convolutional networks
for action segmentation and detection (2017); average precision at temporal overlaps that of ActivityNet
(F. Caba Heilbron et al., 2015). All are shares from 0 to 1; published tables show them as percent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.heads.source import Array, Float32, Float64, Mask, Rows

OVERLAPS = (0.10, 0.25, 0.50)
T_OVERLAPS = (0.3, 0.4, 0.5, 0.6, 0.7)


STEP_FIGURES = {
    "frame_accuracy": "frame accuracy",
    "edit": "edit",
    "f1@10": "F1@10",
    "f1@25": "F1@25",
    "f1@50": "F1@50",
    "step_map": "mAP of steps",
    "map": "mAP",
    "overlap": "overlap",
}
"""The figures of a head of steps that tables show → their headings; a run has some of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A label from one time to another in a video, in seconds or in steps; the end is exclusive."""

    video: str
    start: float
    end: float
    label: str
    score: float = 1.0


def runs_of(labels: Sequence[str] | Array, *, without: str = "") -> list[tuple[str, int, int]]:
    """(label, first, end) of each run of equal labels; those of the label `without` are left out.

    >>> runs_of(["a", "a", "b", "a"], without="b")
    [('a', 0, 2), ('a', 3, 4)]
    """
    names = np.asarray(labels, dtype=object)
    if not len(names):
        return []
    starts = [0, *(np.flatnonzero(names[1:] != names[:-1]) + 1).tolist()]
    ends = [*starts[1:], len(names)]
    each = [(str(names[start]), start, end) for start, end in zip(starts, ends, strict=True)]
    return [run for run in each if run[0] != without]


def edit_score(predicted: Sequence[str], true: Sequence[str]) -> float:
    """1 − the edit distance of two orders of segments, as a share of the longer; 1 where both are empty.

    >>> edit_score(["a", "b", "a"], ["a", "a"])
    0.6666666666666667
    """
    longest = max(len(predicted), len(true))
    if not longest:
        return 1.0
    before = np.arange(len(true) + 1)
    for i, name in enumerate(predicted, start=1):
        now = [i]
        for j, other in enumerate(true, start=1):
            now.append(min(before[j] + 1, now[j - 1] + 1, before[j - 1] + (name != other)))
        before = np.array(now)
    return float(1 - before[-1] / longest)


def hits_at(
    predicted: Sequence[tuple[str, int, int]], true: Sequence[tuple[str, int, int]], overlap: float
) -> tuple[int, int, int]:
    """(true positives, false positives, false negatives) of one video's segments at an overlap.

    Each predicted segment is held against the true one of its label with which it overlaps most
    (intersection over union). It is right if that reaches `overlap` and no earlier one has it.
    """
    found = np.zeros(len(true), dtype=bool)
    wrong = 0
    for label, start, end in predicted:
        shared = [
            (min(end, stop) - max(start, first)) / (max(end, stop) - min(start, first))
            if label == name
            else 0.0
            for name, first, stop in true
        ]
        best = int(np.argmax(shared)) if shared else -1
        if best >= 0 and shared[best] >= overlap and not found[best]:
            found[best] = True
        else:
            wrong += 1
    return int(found.sum()), wrong, int((~found).sum())


def f1(hits: Sequence[tuple[int, int, int]]) -> float:
    """F1 of the counts of all videos together; 0 where nothing is right."""
    right, wrong, missed = np.sum(hits, axis=0) if len(hits) else (0, 0, 0)
    return float(2 * right / (2 * right + wrong + missed)) if right else 0.0


def segmentation(
    predicted: Sequence[Sequence[str] | Array],
    true: Sequence[Sequence[str] | Array],
    *,
    background: str = "",
) -> dict[str, float]:
    """`frame_accuracy`, `edit` and `f1@10`, `f1@25`, `f1@50` of videos whose steps have one label each.

    Edit is the mean over videos, F1 is of all their segments together; segments of `background` do not
    count in either.
    """
    right = sum(
        int((np.asarray(p) == np.asarray(t)).sum()) for p, t in zip(predicted, true, strict=True)
    )
    runs = [
        (runs_of(p, without=background), runs_of(t, without=background))
        for p, t in zip(predicted, true, strict=True)
    ]
    edits = [edit_score([run[0] for run in p], [run[0] for run in t]) for p, t in runs]
    figures = {
        "frame_accuracy": right / max(sum(map(len, true)), 1),
        "edit": float(np.mean(edits)) if edits else 0.0,
    }
    for overlap in OVERLAPS:
        figures[f"f1@{overlap * 100:.0f}"] = f1([hits_at(p, t, overlap) for p, t in runs])
    return figures


def detection(predicted: Sequence[Span], true: Sequence[Span]) -> dict[str, float]:
    """`map@0.3` to `map@0.7`, the mean over labels of average precision, and `map`, the mean of these.

    Labels that are never true do not count. NaN where there is no true segment.
    """
    labels = sorted({span.label for span in true})
    figures = {}
    for overlap in T_OVERLAPS:
        each = [
            average_precision(
                [span for span in predicted if span.label == label],
                [span for span in true if span.label == label],
                overlap,
            )
            for label in labels
        ]
        figures[f"map@{overlap:.1f}"] = float(np.mean(each)) if each else float("nan")
    return figures | {"map": float(np.mean(list(figures.values())))}


def average_precision(predicted: Sequence[Span], true: Sequence[Span], overlap: float) -> float:
    """The interpolated average precision of one label's segments at a temporal overlap.

    The surest first, each takes the true segment of its video that it overlaps most and that none
    before it has taken, if their intersection over union reaches `overlap`.
    """
    taken = np.zeros(len(true), dtype=bool)
    right = np.zeros(len(predicted), dtype=bool)
    order = np.argsort([-span.score for span in predicted], kind="stable")
    for place, i in enumerate(order):
        span = predicted[i]
        shared = [t_iou(span, other) if other.video == span.video else -1.0 for other in true]
        for j in np.argsort([-value for value in shared], kind="stable"):
            if shared[j] < overlap:
                break
            if not taken[j]:
                taken[j] = right[place] = True
                break
    return interpolated(right, len(true))


def interpolated(right: Mask, true: int) -> float:
    """The area under precision over recall, precision made falling; 0 where nothing is true.

    right: (n,) bool, the surest first. true: how many there are to be found.

    >>> interpolated(np.array([True, False, True]), 2)
    0.8333333333333333
    """
    if not true or not len(right):
        return 0.0
    hits = np.cumsum(right)
    precision = np.concatenate([[0.0], hits / np.arange(1, len(right) + 1), [0.0]])
    recall = np.concatenate([[0.0], hits / true, [1.0]])
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    rises = np.flatnonzero(recall[1:] != recall[:-1])
    return float(((recall[rises + 1] - recall[rises]) * precision[rises + 1]).sum())


def t_iou(one: Span, other: Span) -> float:
    """Intersection over union of two spans of time; 0 where they do not meet."""
    shared = min(one.end, other.end) - max(one.start, other.start)
    return max(shared, 0.0) / max(max(one.end, other.end) - min(one.start, other.start), 1e-12)


def step_map(probabilities: Float32, targets: Mask) -> float:
    """The mean over labels of the average precision over steps; labels that never apply do not count.

    probabilities, targets: (n, classes)
    """
    each = []
    for k in np.flatnonzero(targets.any(axis=0)):
        order = np.argsort(-probabilities[:, k], kind="stable")
        right = targets[order, k]
        precision: Float64 = np.cumsum(right) / np.arange(1, len(right) + 1)
        each.append(precision[right].mean())
    return float(np.mean(each)) if each else float("nan")


def several(probabilities: Float32, targets: Mask) -> dict[str, float]:
    """Figures of steps to which several labels may apply: `top5`, `macro_f1` and `step_map`.

    `top5` is the share of applying labels that are among the five likeliest of their step, `macro_f1` the
    mean over labels that occur of F1 at a probability of a half. probabilities, targets: (n, classes)
    """
    best = np.argsort(np.argsort(-probabilities, axis=1, kind="stable"), axis=1) < 5
    said, occurs = probabilities >= 0.5, targets.any(axis=0)
    right = (said & targets).sum(axis=0)
    scores = 2 * right / np.maximum(said.sum(axis=0) + targets.sum(axis=0), 1)
    return {
        "top5": float(best[targets].mean()) if targets.any() else float("nan"),
        "macro_f1": float(scores[occurs].mean()) if occurs.any() else float("nan"),
        "step_map": step_map(probabilities, targets),
    }


def overlap_with_truth(predicted: Rows, true: Rows, classes: int) -> Float64:
    """(classes,) intersection over union of the steps that have each class; NaN where neither has it."""
    shares = np.full(classes, np.nan)
    for k in range(classes):
        either = ((predicted == k) | (true == k)).sum()
        if either:
            shares[k] = ((predicted == k) & (true == k)).sum() / either
    return shares
