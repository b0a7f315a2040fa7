"""Changes to sequences in feature space, for training only: pure functions of arrays and a seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def jitter_steps(
    features: npt.NDArray[Any], mask: npt.NDArray[np.bool_], reach: int, rng: np.random.Generator
) -> npt.NDArray[Any]:
    """Every real step replaced by one at most `reach` steps away; the order of time is kept.

    Each step i of a clip with n real steps becomes sorted(clip(i + U{−reach…reach}, 0, n − 1))[i].
    `features` (n, steps, *shape); padding and mask are unchanged.
    """
    clips, steps = mask.shape
    lengths = mask.sum(axis=1, keepdims=True)
    places = np.arange(steps)[None, :]
    moved = places + rng.integers(-reach, reach + 1, size=(clips, steps))
    moved = np.clip(moved, 0, np.maximum(lengths - 1, 0))
    moved = np.where(mask, np.sort(np.where(mask, moved, steps), axis=1), places)
    picked: npt.NDArray[Any] = features[np.arange(clips)[:, None], moved]
    return picked


def drop_features(
    features: npt.NDArray[Any],
    share: float,
    fill: npt.NDArray[np.float32],
    rng: np.random.Generator,
) -> npt.NDArray[Any]:
    """Each clip with this share of its channels, chosen at random, set to `fill` at all steps.

    `features` (n, steps, *shape), `fill` (channels,): the training mean, which a head sees as 0.
    Channels are what is normalised apart: of landmarks every coordinate of each, of pixels the colours.
    """
    clips, steps, channels = *features.shape[:2], len(fill)
    flat = features.reshape(clips, steps, -1, channels)
    dropped = rng.random((clips, 1, 1, channels)) < share
    return np.where(dropped, fill.astype(features.dtype), flat).reshape(features.shape)
