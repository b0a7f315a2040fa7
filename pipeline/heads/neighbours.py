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
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.heads.source import Array, Float32, Rows, SequenceSource
from pipeline.heads.statistics import scale_of

Vectors = Array

_IN_CACHE = 64  # vectors compared at a time: a core's cache holds them through every step of it
_BLOCK = 4096  # vectors that are made float32 at a time: bounds memory, whatever the store's size


def mean_vectors(
    source: SequenceSource,
    rows: Rows,
    *,
    on_progress: Callable[[int, int], None] | None = None,
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
        if on_progress is not None:
            on_progress(done, len(rows))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scaling:
    """`mean` and `scale`, both (channels,) float32: a vector is compared as (x − mean) · scale."""

    mean: Float32
    scale: Float32

    def __repr__(self) -> str:
        return f"Scaling(mean={self.mean.shape}, scale={self.scale.shape})"

    @classmethod
    def of(cls, vectors: Vectors) -> Scaling:
        """The scaling of these vectors (n, channels); constant channels are ignored."""
        count = max(len(vectors), 1)
        blocks = range(0, len(vectors), _BLOCK)
        total = np.zeros(vectors.shape[1])
        for start in blocks:
            total += vectors[start : start + _BLOCK].sum(axis=0, dtype=np.float64)
        mean = total / count
        squares = np.zeros(vectors.shape[1])
        for start in blocks:
            gap = vectors[start : start + _BLOCK] - mean.astype(np.float32)
            squares += np.square(gap, dtype=np.float32).sum(axis=0, dtype=np.float64)
        return cls(mean=mean.astype(np.float32), scale=scale_of(np.sqrt(squares / count)))

    def unit(self, vectors: Vectors) -> Float32:
        """The scaled vectors (n, channels) at length 1; a vector at the mean stays 0."""
        scaled = np.array(vectors, np.float32)
        scaled -= self.mean
        scaled *= self.scale
        lengths = np.sqrt(np.einsum("nc,nc->n", scaled, scaled))[:, None]
        scaled /= np.maximum(lengths, 1e-12)
        return scaled


def nearest(
    vectors: Vectors, query: Vectors, *, count: int, scaling: Scaling, leave_out: int = -1
) -> tuple[Rows, Float32]:
    """The positions in `vectors` (n, channels) most similar to `query` (channels,), and the similarities.

    Exact: every vector is compared. Similarities are cosines, −1 to 1, the largest first; ties go
    to the lower position.
    leave_out: a position that does not count (the query's own)
    """
    target = scaling.unit(query[None])[0]
    cosines = np.empty(len(vectors), np.float32)

    def compare(first: int) -> None:
        for start in range(first, min(first + _BLOCK, len(vectors)), _IN_CACHE):
            part = slice(start, min(start + _IN_CACHE, first + _BLOCK))
            cosines[part] = scaling.unit(vectors[part]) @ target

    # NumPy lets other threads work: a search takes every core.
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        deque(threads.map(compare, range(0, len(vectors), _BLOCK)), maxlen=0)
    if leave_out >= 0:
        cosines[leave_out] = -np.inf
    order = np.argsort(-cosines, kind="stable")[: max(0, count)]
    order = order[np.isfinite(cosines[order])]
    return order, cosines[order]


def same_class_share(
    vectors: Vectors,
    labels: npt.ArrayLike,
    *,
    count: int = 5,
    groups: npt.ArrayLike | None = None,
) -> dict[str, Any]:
    """How often a clip's `count` nearest have its label, and how often by chance.

    With `groups`, only clips of other groups are looked at: one scene looks like itself whatever is
    done in it. Clips without a label are left out. Chance is the share of same-labelled clips among
    those that were compared.
    """
    names = np.asarray(labels)
    known = names != ""
    unit, names = Scaling.of(vectors[known]).unit(vectors[known]), names[known]
    scenes = None if groups is None else np.asarray(groups)[known]
    hits, chances = [], []
    for start in range(0, len(unit), _BLOCK):
        cosines = unit[start : start + _BLOCK] @ unit.T
        own = np.arange(len(cosines))
        allowed = np.ones(cosines.shape, bool)
        allowed[own, start + own] = False
        if scenes is not None:
            mine = scenes[start : start + _BLOCK, None]
            allowed &= (mine != scenes) | (mine == "")
            allowed[own, start + own] = False
        cosines[~allowed] = -np.inf
        best = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
        same = names[start : start + _BLOCK, None] == names
        usable = np.take_along_axis(allowed, best, axis=1)
        right = np.take_along_axis(same, best, axis=1) & usable
        some = usable.any(axis=1)
        hits.append(right[some].sum(axis=1) / usable[some].sum(axis=1))
        chances.append((same & allowed)[some].sum(axis=1) / allowed[some].sum(axis=1))
    share = np.concatenate(hits) if hits else np.zeros(0)
    chance = np.concatenate(chances) if chances else np.zeros(0)
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
    unit = Scaling.of(vectors).unit(vectors)
    pairs_by_block = []
    for start in range(0, len(unit), _BLOCK):
        cosines = unit[start : start + _BLOCK] @ unit[start:].T
        first, second = np.nonzero(np.triu(cosines >= near, k=1))
        pairs_by_block.append(
            pd.DataFrame(
                {
                    "first": first + start,
                    "second": second + start,
                    "similarity": cosines[first, second],
                }
            )
        )
    if not pairs_by_block:
        none = np.zeros(0, np.int64)
        return pd.DataFrame({"first": none, "second": none, "similarity": np.zeros(0, np.float32)})
    pairs = pd.concat(pairs_by_block, ignore_index=True)
    return pairs.sort_values("similarity", ascending=False, ignore_index=True).head(most)


def project(vectors: Vectors, *, seed: int = 0) -> tuple[Float32, list[float]]:
    """(n, 2) principal components of the unit vectors, and each one's share of the variance."""
    if len(vectors) < 3 or vectors.shape[1] < 2:
        return np.zeros((len(vectors), 2), np.float32), [0.0, 0.0]
    from sklearn.decomposition import PCA

    pca = PCA(2, svd_solver="randomized", random_state=seed)
    points = pca.fit_transform(Scaling.of(vectors).unit(vectors))
    return points.astype(np.float32), [float(share) for share in pca.explained_variance_ratio_]
