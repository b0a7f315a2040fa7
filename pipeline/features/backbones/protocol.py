"""The interface of every loaded backbone."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Backbone(Protocol):
    """A loaded backbone: frames in, one vector (or small array) per frame out.

    `concurrency` threads may call it at once, and that many keep the device busy. Every call runs
    one fixed batch shape of `batch` frames and pads itself, and a frame's result does not
    depend, to the bit, on its place in the batch, on its neighbours or on the caller's thread.
    Where `whole_clips` is true a call must hold all frames of one clip, in order, and no others.
    """

    @property
    def name(self) -> str: ...
    @property
    def engine(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def size(self) -> int: ...
    @property
    def batch(self) -> int: ...
    @property
    def concurrency(self) -> int: ...
    @property
    def whole_clips(self) -> bool: ...
    @property
    def software(self) -> dict[str, str]: ...

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """`frames`: (n ≤ batch, size, size, 3) uint8 RGB → (n, *shape) float32."""
        ...


def check_frames(frames: np.ndarray, *, size: int, batch: int) -> None:
    """Raise `ValueError` unless `frames` is (1 to batch, size, size, 3) uint8."""
    if frames.dtype != np.uint8 or frames.shape[1:] != (size, size, 3):
        raise ValueError(
            f"frames are {frames.shape} {frames.dtype}: this backbone takes "
            f"(n, {size}, {size}, 3) uint8"
        )
    if not 1 <= len(frames) <= batch:
        raise ValueError(f"{len(frames)} frames in one call: give 1 to {batch}")


def padded(frames: np.ndarray, batch: int) -> np.ndarray:
    """`frames` as a whole batch: itself where it is one, else filled up with zeros."""
    if len(frames) == batch:
        return np.ascontiguousarray(frames)
    whole = np.zeros((batch, *frames.shape[1:]), frames.dtype)
    whole[: len(frames)] = frames
    return whole
