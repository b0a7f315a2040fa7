"""Figures of a classifier from its probabilities: pure functions of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from pipeline.heads.source import Array, Float32, Rows

Probabilities = Float32
Labels = Rows


RESAMPLES, LEVEL = 2000, 0.95  # of a bootstrap's interval
LEAST_GROUPS = 5
"""Test groups below which there is no interval."""


def measure(probabilities: Probabilities, labels: Labels) -> dict[str, Any]:
    """top1, top5, loss (mean cross-entropy, nats), macro_f1, ece and clips.

    `probabilities` (n, classes), `labels` (n,). top5 is 1 with five classes or fewer. Without clips
    all figures are NaN.
    """
    if not len(labels):
        return dict.fromkeys(("top1", "top5", "loss", "macro_f1", "ece"), float("nan")) | {
            "clips": 0
        }
    rank = label_ranks(probabilities, labels)
    table = per_class(probabilities, labels, [str(i) for i in range(probabilities.shape[1])])
    return {
        "top1": float((rank < 1).mean()),
        "top5": float((rank < 5).mean()),
        "loss": cross_entropy(probabilities, labels),
        "macro_f1": float(table.loc[table["clips"] > 0, "f1"].mean()),
        "ece": calibration_error(probabilities, labels),
        "clips": len(labels),
    }


def predicted_classes(probabilities: Probabilities) -> Labels:
    """The likeliest class of each clip (n,), of equal ones the first; −1 where one is not a number.

    Used by every figure and by `predict`: top-1, confusion and ranks.
    """
    finite = np.isfinite(probabilities).all(axis=1)
    first: Labels = np.where(finite, probabilities.argmax(axis=1), -1).astype(np.int64)
    return first


def label_ranks(probabilities: Probabilities, labels: Labels) -> Labels:
    """How many classes come before the true one, per clip; of equal ones the first in order does.

    0 is exactly where `predicted_classes` is right. A clip with a probability that is not a number
    ranks last.
    """
    own = probabilities[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(probabilities.shape[1]) < labels[:, None]
    before = (probabilities > own) | ((probabilities == own) & earlier)
    finite = np.isfinite(probabilities).all(axis=1)
    # Beyond top-5 too, however few the classes are.
    last = max(probabilities.shape[1], 5)
    rank: Labels = np.where(finite, before.sum(axis=1), last).astype(np.int64)
    return rank


def cross_entropy(probabilities: Probabilities, labels: Labels) -> float:
    """The mean of −log p(true class), probabilities held at 1e-7 at least; NaN where one is NaN."""
    own = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.clip(own, 1e-7, 1.0)).mean())


def calibration_error(probabilities: Probabilities, labels: Labels, bins: int = 15) -> float:
    """Expected calibration error: Σ bin share · |accuracy − confidence| (Guo et al. 2017)."""
    # What is not a number is no confidence, and never right.
    predicted = predicted_classes(probabilities)
    confidence = np.where(predicted >= 0, probabilities.max(axis=1), 0).astype(np.float64)
    right = predicted == labels
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.abs(
        np.bincount(bin_of, right.astype(float), minlength=bins)
        - np.bincount(bin_of, confidence, minlength=bins)
    )
    return float(gaps.sum() / len(labels))


def confusion(probabilities: Probabilities, labels: Labels) -> Rows:
    """(classes, classes) counts: row = true class, column = predicted class.

    Clips for which nothing was predicted (a probability is not a number) are not in it.
    """
    classes = probabilities.shape[1]
    table = np.zeros((classes, classes), dtype=np.int64)
    predicted = predicted_classes(probabilities)
    np.add.at(table, (labels[predicted >= 0], predicted[predicted >= 0]), 1)
    return table


def per_class(probabilities: Probabilities, labels: Labels, classes: Sequence[str]) -> pd.DataFrame:
    """precision, recall, f1 and clips of every class, in the order of `classes`."""
    counts = confusion(probabilities, labels)
    hit = np.diag(counts).astype(float)
    predicted, true = counts.sum(axis=0), np.bincount(labels, minlength=len(classes))
    columns = {
        "class": list(classes),
        "precision": hit / np.maximum(predicted, 1),
        "recall": hit / np.maximum(true, 1),
        "f1": 2 * hit / np.maximum(predicted + true, 1),
        "clips": true,
    }
    return pd.DataFrame(columns)


def bootstrap_interval(values: Array, groups: Array, *, seed: int = 0) -> tuple[float, float]:
    """The percentile interval of the mean of `values` (n,) when whole groups are resampled.

    Clips of one source video are not independent, so groups (n,) are the unit of chance. Give the
    difference of two heads' hits for a paired comparison. (NaN, NaN) below `LEAST_GROUPS` groups:
    resampling so few tells nothing about groups that were not seen.
    """
    names, of = np.unique(groups, return_inverse=True)
    if len(names) < LEAST_GROUPS:
        return float("nan"), float("nan")
    sums = np.bincount(of, values.astype(float))
    sizes = np.bincount(of).astype(float)
    rng = np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        drawn = rng.integers(0, len(sums), len(sums))
        means[i] = sums[drawn].sum() / sizes[drawn].sum()
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def interval_record(values: Array, groups: Array) -> dict[str, Any]:
    """`top1_interval` ([low, high], or None where there are too few groups) and `groups`."""
    low, high = bootstrap_interval(values, groups)
    known = not np.isnan(low)
    return {"top1_interval": [low, high] if known else None, "groups": len(set(groups))}


def majority_baseline(training: Labels, labels: Labels) -> float:
    """The accuracy of always predicting the commonest training class."""
    return float((labels == np.bincount(training).argmax()).mean()) if len(labels) else 0.0


def class_weights(labels: Rows, classes: int) -> Float32:
    """(classes,) weights n / (classes present · n of class), mean 1 over the clips."""
    counts = np.bincount(labels, minlength=classes)
    present = np.count_nonzero(counts)
    return (len(labels) / (present * np.maximum(counts, 1))).astype(np.float32)
