"""Which clips look alike, by the mean of their features: exact nearest neighbours, duplicates, a map.

Every clip is one vector, the mean over its real steps. Vectors are compared by cosine after each
channel was centred and scaled over all clips: raw CNN features share a large common part, beside
which any two clips look alike.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.heads.source import Array, Float32, Rows, SequenceSource
from pipeline.heads.statistics import BLOCK, Statistics

Vectors = Array

_IN_CACHE = 64  # vectors compared at a time: a core's cache holds them through every step of it


def mean_vectors(
    source: SequenceSource,
    rows: Rows,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[tuple[Rows, Float32]]:
    """Yield (rows (n,), vectors (n, channels) float32) until each of `rows` was yielded once.

    Rows whose features are damaged are left out by the source. `on_progress` is called with (rows
    done, rows to do).
    """
    done = 0
    for batch in source.batches(rows, 64):
        count = batch.mask.sum(axis=1, dtype=np.float32)
        flat = batch.features.reshape(*batch.mask.shape, -1)
        # Padding is zero in a store, so that a plain sum over steps is the masked one.
        sums = flat.sum(axis=1, dtype=np.float32)
        yield batch.rows, sums / np.maximum(count, 1)[:, None]
        done += len(batch.rows)
        on_progress(done, len(rows))


def nearest(
    vectors: Vectors, query: Vectors, *, count: int, scaling: Statistics, leave_out: int = -1
) -> tuple[Rows, Float32]:
    """The positions in `vectors` (n, channels) most similar to `query` (channels,), and the similarities.

    Exact: every vector is compared. Similarities are cosines, −1 to 1, the largest first; ties go
    to the lower position.
    leave_out: a position that does not count (the query's own)
    """
    target = scaling.unit(query[None])[0]
    cosines = np.empty(len(vectors), np.float32)

    def compare(first: int) -> None:
        for start in range(first, min(first + BLOCK, len(vectors)), _IN_CACHE):
            part = slice(start, min(start + _IN_CACHE, first + BLOCK))
            cosines[part] = scaling.unit(vectors[part]) @ target

    # NumPy lets other threads work: a search takes every core.
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        deque(threads.map(compare, range(0, len(vectors), BLOCK)), maxlen=0)
    if leave_out >= 0:
        cosines[leave_out] = -np.inf
    order = np.argsort(-cosines, kind="stable")[: max(0, count)]
    order = order[np.isfinite(cosines[order])]
    return order, cosines[order]


def same_class_share(
    vectors: Vectors, labels: npt.ArrayLike, *, count: int = 5, groups: npt.ArrayLike | None = None
) -> dict[str, Any]:
    """How often a clip's `count` nearest have its label, and how often by chance.

    With `groups`, only clips of other groups are looked at: one scene looks like itself whatever is
    done in it. Clips without a label are left out. Chance is the share of same-labelled clips among
    those that were compared.
    """
    names = np.asarray(labels)
    known = names != ""
    unit, names = Statistics.of(vectors[known]).unit(vectors[known]), names[known]
    scenes = None if groups is None else np.asarray(groups)[known]
    hits, chances = [np.zeros(0)], [np.zeros(0)]
    for start in range(0, len(unit), BLOCK):
        cosines = unit[start : start + BLOCK] @ unit.T
        own = np.arange(len(cosines))
        allowed = np.ones(cosines.shape, bool)
        if scenes is not None:
            mine = scenes[start : start + BLOCK, None]
            allowed &= (mine != scenes) | (mine == "")
        allowed[own, start + own] = False
        cosines[~allowed] = -np.inf
        best = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
        same = names[start : start + BLOCK, None] == names
        usable = np.take_along_axis(allowed, best, axis=1)
        right = np.take_along_axis(same, best, axis=1) & usable
        some = usable.any(axis=1)
        hits.append(right[some].sum(axis=1) / usable[some].sum(axis=1))
        chances.append((same & allowed)[some].sum(axis=1) / allowed[some].sum(axis=1))
    share, chance = np.concatenate(hits), np.concatenate(chances)
    return {
        "clips": len(share),
        "neighbours": count,
        "same_class": float(share.mean()) if len(share) else float("nan"),
        "chance": float(chance.mean()) if len(chance) else float("nan"),
    }


def look_alikes(vectors: Vectors, *, near: float = 0.98, most: int = 200) -> pd.DataFrame:
    """Pairs of positions with near-identical vectors: columns first, second, similarity.

    The most similar first, at most `most`. Every pair is compared: 10,000 clips take seconds.
    """
    unit = Statistics.of(vectors).unit(vectors)
    none = np.zeros(0, np.int64)
    blocks = [_pairs(none, none, np.zeros(0, np.float32))]
    for start in range(0, len(unit), BLOCK):
        cosines = unit[start : start + BLOCK] @ unit[start:].T
        first, second = np.nonzero(np.triu(cosines >= near, k=1))
        blocks.append(_pairs(first + start, second + start, cosines[first, second]))
    pairs = pd.concat(blocks, ignore_index=True)
    return pairs.sort_values("similarity", ascending=False, ignore_index=True).head(most)


def _pairs(first: Rows, second: Rows, similarity: Float32) -> pd.DataFrame:
    return pd.DataFrame({"first": first, "second": second, "similarity": similarity})


def project(vectors: Vectors, *, seed: int = 0) -> tuple[Float32, list[float]]:
    """(n, 2) principal components of the unit vectors, and each one's share of the variance."""
    if len(vectors) < 3 or vectors.shape[1] < 2:
        return np.zeros((len(vectors), 2), np.float32), [0.0, 0.0]
    from sklearn.decomposition import PCA

    pca = PCA(2, svd_solver="randomized", random_state=seed)
    points = pca.fit_transform(Statistics.of(vectors).unit(vectors))
    return points.astype(np.float32), [float(share) for share in pca.explained_variance_ratio_]
