"""Probabilities of every step of whole videos."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.errors import ConfigError
from pipeline.heads.source import Array, Float32, Rows
from pipeline.heads.steps.feeding import Stretch, batched, padded_length, sequences, stretches
from pipeline.heads.steps.videos import StepClips


def predict_videos(model: Any, clips: StepClips, positions: Rows, batch: int) -> list[Float32]:
    """(steps, classes) of each of the videos at these positions, in their order."""
    results: dict[tuple[int, int], Float32] = {}
    parts = stretches(clips, positions)
    for some in batched(parts, batch):
        features, mask = sequences(clips, some, batch)
        outputs = np.asarray(model.predict_on_batch({"features": features, "mask": mask}))
        for part, row in zip(some, outputs, strict=False):
            results[part.position, part.first] = row[: len(part)].astype(np.float32)
    by_video: dict[int, list[Stretch]] = {}
    for part in parts:
        by_video.setdefault(part.position, []).append(part)
    return [
        np.concatenate([results[i, part.first] for part in by_video[int(i)]]) for i in positions
    ]


def predict_steps(model: Any, features: Array) -> Float32:
    """(n, classes) of one video's steps, features (n, *shape). Raises `ConfigError` without a step."""
    if not len(features):
        raise ConfigError("a video has no step: give one with frames")
    steps = padded_length(len(features))
    padded = np.zeros((1, steps, *features.shape[1:]), np.float32)
    padded[0, : len(features)] = features
    mask = np.arange(steps)[None] < len(features)
    outputs = model.predict_on_batch({"features": padded, "mask": mask})
    return np.asarray(outputs, dtype=np.float32)[0, : len(features)]
