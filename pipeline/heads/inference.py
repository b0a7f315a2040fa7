"""Predictions of a Keras model in batches of one fixed shape, so that nothing is compiled twice."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.heads.clips import Clips
from pipeline.heads.measures import Probabilities
from pipeline.heads.source import Array, Mask, Rows


def predict_probabilities(
    model: Any, clips: Clips, positions: Rows, batch: int = 64
) -> Probabilities:
    """(n, classes) float32 of the clips at `positions`, in their order, from the first store alone.

    `predict` reads a clip in the same way, whether the head was trained with views or without.
    """
    parts = [np.zeros((0, len(clips.classes)), np.float32)]
    order = [np.zeros(0, np.int64)]
    for features, mask, at in clips.batches(positions, batch):
        parts.append(predict_batch(model, features, mask, batch))
        order.append(at)
    if not np.array_equal(np.concatenate(order), positions):
        raise RuntimeError(f"{len(positions)} clips were asked for and others were predicted")
    return np.concatenate(parts)


def predict_views(model: Any, clips: Clips, positions: Rows, batch: int = 64) -> Probabilities:
    """(n, classes) float32: the mean of the probabilities over all views of each clip."""
    total = predict_probabilities(model, clips, positions, batch)
    for view, places in clips.views:
        total = total + predict_probabilities(model, view, places[positions], batch)
    return np.asarray(total / (1 + len(clips.views)), dtype=np.float32)


def predict_batch(model: Any, features: Array, mask: Mask, batch: int) -> Probabilities:
    """(n, classes) float32 for n ≤ `batch` sequences, computed as one full batch."""
    n = len(features)
    if n < batch:
        # Filled up with repeats of a real clip: a row without a real step would abort cuDNN.
        fill = np.zeros(batch - n, dtype=np.int64)
        features = np.concatenate([features, features[fill]])
        mask = np.concatenate([mask, mask[fill]])
    outputs = model.predict_on_batch({"features": features, "mask": mask})
    return np.asarray(outputs, dtype=np.float32)[:n]
