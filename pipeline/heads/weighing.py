"""How much each of several heads counts in the mean of their probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.heads.source import Float32, Float64, Rows

EVIDENCE = 2.0
"""A head is kept if without it the clips' cross-entropies are higher by more than so much in sum. One
that says nothing passes that by chance in one case of 44 (the likelihood ratio of one parameter)."""
ROOM = 1e-3
"""Share of a probability that is spread over all classes: a sure mistake is not beyond measure."""
ITERATIONS = 1000


def weigh(
    predictions: Sequence[Float32], labels: Rows, clip_weights: Float64 | None = None
) -> Float64:
    """Weights (heads,), at least 0 and in sum 1, of the lowest cross-entropy of the weighted mean.

    predictions: (clips, classes) of every head, for clips that it was not fitted on. A convex problem,
    solved by expectation maximisation. Then heads that do not help (`EVIDENCE`) are left out, the one
    that is missed least first: their weight is 0.
    """
    at = np.arange(len(labels))
    classes = predictions[0].shape[1]
    chances = np.stack([each[at, labels] for each in predictions], axis=1).astype(np.float64)
    chances = (1 - ROOM) * chances + ROOM / classes
    each_clip = np.ones(len(labels)) if clip_weights is None else clip_weights
    kept = list(range(len(predictions)))
    weights, loss = _mixture(chances, each_clip)
    while len(kept) > 1:
        without = [_mixture(chances[:, [i for i in kept if i != head]], each_clip) for head in kept]
        least = int(np.argmin([total for _, total in without]))
        if without[least][1] - loss > EVIDENCE:
            break
        del kept[least]
        weights, loss = without[least]
    whole = np.zeros(len(predictions))
    whole[kept] = weights
    return whole


def _mixture(chances: Float64, clip_weights: Float64) -> tuple[Float64, float]:
    """The weights of the lowest Σ −log Σ weight · chance, and that sum; chances (clips, heads)."""
    weights = np.full(chances.shape[1], 1 / chances.shape[1])
    for _ in range(ITERATIONS if chances.shape[1] > 1 else 0):
        shares = weights * chances
        shares /= shares.sum(axis=1, keepdims=True)
        new = np.average(shares, axis=0, weights=clip_weights)
        done = np.abs(new - weights).max() < 1e-9
        weights = new
        if done:
            break
    return weights, -float(clip_weights @ np.log(chances @ weights))
