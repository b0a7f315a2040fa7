"""A CNN that costs nothing, to measure what stands around one."""

from __future__ import annotations

import time

import numpy as np


class NullCnn:
    """A backbone that computes nothing, or waits as long as a device would."""

    name = engine = "null"
    shape: tuple[int, ...] = (2048,)
    whole_clips = False

    def __init__(
        self,
        batch: int = 256,
        concurrency: int = 2,
        size: int = 299,
        frames_per_second: float = 0.0,
    ) -> None:
        self.size = size
        self.software: dict[str, str] = {}
        self.batch = batch
        self.concurrency = concurrency
        # Not zeros: a chunk of zeros is not written at all.
        values = np.random.default_rng(0).random((batch, *self.shape), np.float32)
        self._features = values
        self._pause_s = batch * concurrency / frames_per_second if frames_per_second else 0.0

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        if self._pause_s:
            time.sleep(self._pause_s * len(frames) / self.batch)
        return self._features[: len(frames)]
