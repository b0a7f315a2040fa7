"""How much each of several heads counts in the weighted geometric mean of their probabilities.

A geometric mean, because streams that see different things rule out different classes: of two heads that
are undecided between A and B, and between A and C, it says A; an arithmetic mean stays undecided.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.heads.source import Float32, Float64, Rows

EVIDENCE = 0.5
"""A head is kept if without it the clips' cross-entropies are higher by more than so much in sum."""
ROOM = 1e-3
"""Share of a probability that is spread over all classes: a sure mistake is not beyond measure."""
STEPS = 500
PRECISION = 1e-7


def pooled(predictions: Sequence[Float32], weights: Float64) -> Float32:
    """(clips, classes): the weighted geometric mean of each head's (clips, classes), scaled to sum 1."""
    logs = np.tensordot(weights, _logs(predictions), axes=1)
    shares = np.exp(logs - logs.max(axis=1, keepdims=True, initial=-np.inf))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True), dtype=np.float32)


def weigh(
    predictions: Sequence[Float32], labels: Rows, clip_weights: Float64 | None = None
) -> Float64:
    """Weights (heads,), at least 0 and in sum 1, of the lowest cross-entropy of `pooled`.

    predictions: (clips, classes) of every head, for clips that it was not fitted on. A convex problem,
    solved by exponentiated gradient. Heads that do not help (`EVIDENCE`) are left out, the one that is
    missed least first: their weight is 0.
    """
    logs = _logs(predictions)
    each_clip = np.ones(len(labels)) if clip_weights is None else clip_weights
    kept = list(range(len(predictions)))
    weights, loss = _solved(logs, labels, each_clip)
    while len(kept) > 1:
        without = [
            _solved(logs[[i for i in kept if i != head]], labels, each_clip) for head in kept
        ]
        least = int(np.argmin([total for _, total in without]))
        if without[least][1] - loss > EVIDENCE:
            break
        del kept[least]
        weights, loss = without[least]
    whole = np.zeros(len(predictions))
    whole[kept] = weights
    return whole


def _logs(predictions: Sequence[Float32]) -> Float64:
    """(heads, clips, classes) logarithms, each probability with its share of `ROOM`."""
    shares = np.stack(predictions).astype(np.float64)
    return np.asarray(np.log((1 - ROOM) * shares + ROOM / shares.shape[2]))


def _solved(logs: Float64, labels: Rows, clip_weights: Float64) -> tuple[Float64, float]:
    """The weights (heads,) of the lowest sum of cross-entropies, and that sum."""
    weights = np.full(len(logs), 1 / len(logs))
    loss, slope = _cost(logs, labels, clip_weights, weights)
    step = 1 / len(labels)
    for _ in range(STEPS if len(logs) > 1 else 0):
        new = weights * np.exp(-step * (slope - slope.min()))
        new /= new.sum()
        new_loss, new_slope = _cost(logs, labels, clip_weights, new)
        if new_loss > loss:
            step /= 2
            continue
        gained = loss - new_loss
        weights, loss, slope, step = new, new_loss, new_slope, step * 1.5
        if gained < PRECISION:
            break
    return weights, loss


def _cost(
    logs: Float64, labels: Rows, clip_weights: Float64, weights: Float64
) -> tuple[float, Float64]:
    """The sum of the clips' cross-entropies, and its gradient (heads,)."""
    at = np.arange(len(labels))
    sums = np.tensordot(weights, logs, axes=1)
    top = sums.max(axis=1)
    scale = np.log(np.exp(sums - top[:, None]).sum(axis=1)) + top
    shares = np.exp(sums - scale[:, None])
    loss = float(clip_weights @ (scale - sums[at, labels]))
    expected = np.einsum("hcn,cn->hc", logs, shares) - logs[:, at, labels]
    return loss, expected @ clip_weights
