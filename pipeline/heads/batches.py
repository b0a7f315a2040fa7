"""Last batches of an epoch that are smaller than the others."""

from __future__ import annotations

import numpy as np

from pipeline import engine
from pipeline.heads.config import TrainConfig
from pipeline.heads.source import Float32, Rows


def fills_up(settings: TrainConfig) -> bool:
    """Whether such a batch is filled up: where another size means another compilation."""
    # With class weights top-1 is a plain mean over the batch, copies and all.
    return engine.backend_name() == "jax" and not settings.class_weights


def filled_up(count: int, size: int) -> tuple[Rows, Float32]:
    """(size,) rows of a batch of `count` clips, and what each counts in the mean over them.

    A last, smaller batch is filled up with copies that count nothing: JAX would compile its step anew,
    which takes as long as the first.
    """
    rows = np.where(np.arange(size) < count, np.arange(size), 0)
    counts = np.where(np.arange(size) < count, size / count, 0.0)
    return rows, counts.astype(np.float32)
