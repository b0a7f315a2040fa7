"""Test clips that look the same as a training clip, or are of its group: what `leakage.csv` lists."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.heads.clips import Clips
from pipeline.heads.gate import straddling
from pipeline.heads.source import Rows
from pipeline.heads.splits import Split
from pipeline.heads.statistics import FLOOR, Statistics, channels_of

NEAR = 0.98
"""From this cosine on, two clips' mean features count as near-identical. Copies of one video at
another bitrate lie above 0.99, neighbouring shots of one scene mostly below 0.95."""
NEAR_IDENTICAL, SAME_GROUP = "near identical", "same group"


def leakage_table(clips: Clips, split: Split, statistics: Statistics) -> pd.DataFrame:
    """Test clips that are near-identical to a training or validation clip, or share a training group.

    statistics: of the training clips

    Columns test, other, part, similarity, why (`NEAR_IDENTICAL` or `SAME_GROUP`).
    """
    near = near_identical(clips, split, statistics).assign(why=NEAR_IDENTICAL)
    straddle = straddling(clips, split).assign(why=SAME_GROUP)
    return pd.concat([near, straddle], ignore_index=True) if len(straddle) else near


def near_identical(
    clips: Clips, split: Split, statistics: Statistics, *, near: float = NEAR
) -> pd.DataFrame:
    """Test clips with a near-identical training or validation clip, the nearest first.

    Columns test, other, part, similarity: the cosine of both clips' mean standardised features.
    An empty frame is a clean split; a long one means that the test figures are too good.
    """
    test = clips.positions(split.test)
    tables = []
    vectors = _pooled(clips, clips.positions(split.train), statistics)
    for part in ("train", "validation"):
        at = clips.positions(getattr(split, part))
        if not len(at) or not len(test):
            continue
        similarity = vectors[test] @ vectors[at].T
        nearest = similarity.argmax(axis=1)
        best = similarity[np.arange(len(test)), nearest]
        ids = clips.table["video_id"].to_numpy()
        found = np.flatnonzero(best >= near)
        tables.append(
            pd.DataFrame(
                {
                    "test": ids[test[found]],
                    "other": ids[at[nearest[found]]],
                    "part": part,
                    "similarity": best[found],
                }
            )
        )
    if not tables:
        return pd.DataFrame(columns=["test", "other", "part", "similarity"])
    table = pd.concat(tables, ignore_index=True)
    return table.sort_values("similarity", ascending=False, ignore_index=True)


def _pooled(clips: Clips, training: Rows, statistics: Statistics) -> npt.NDArray[np.float32]:
    """(clips, channels) unit vectors: each clip's mean over its real steps, standardised."""
    channels = channels_of(clips.shape)
    vectors = np.full((len(clips), channels), np.nan, np.float32)
    for features, mask, at in clips.batches(np.arange(len(clips)), 32):
        for i, position in enumerate(at):
            steps = features[i][mask[i]].reshape(-1, channels).astype(np.float32)
            vectors[position] = steps.mean(axis=0)
    if np.isnan(vectors).any():
        raise RuntimeError("some clips' mean features were not computed")
    # Deviations between clips are smaller than between frames: scale by their own.
    vectors -= statistics.mean
    spread = vectors[training].std(axis=0)
    vectors *= np.where(spread > 0, 1 / np.maximum(spread, FLOOR * np.median(spread) + 1e-30), 0)
    unit: npt.NDArray[np.float32] = vectors / np.maximum(
        np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12
    )
    return unit
