"""A CNN that costs nothing, to measure what stands around one."""

from __future__ import annotations

import threading
import time

import numpy as np

TRANSFER = 0.9
"""Seconds that copies to a card and back take per second that it computes: an H100 made 8,840
frames/s for one caller, 16,822 of frames that lay there already."""


class NullCnn:
    """A backbone that computes nothing, or that waits as long as a card would.

    A card computes one batch at a time; copies to it and from it run beside that, a batch per caller.
    """

    name = engine = "null"
    shape: tuple[int, ...] = (2048,)
    whole_clips = False
    block = 0

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
        self._frame_s = 1 / frames_per_second if frames_per_second else 0.0
        self._lock = threading.Lock()
        self._free_at = 0.0

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Of one call's frames."""
        return (self.batch, self.size, self.size, 3)

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        if self._frame_s:
            time.sleep(TRANSFER * self._frame_s * len(frames))
            with self._lock:
                begins = max(time.perf_counter(), self._free_at)
                self._free_at = begins + self._frame_s * len(frames)
            time.sleep(max(begins + self._frame_s * len(frames) - time.perf_counter(), 0.0))
        return self._features[: len(frames)]
