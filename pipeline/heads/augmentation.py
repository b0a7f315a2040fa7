"""Changes to training clips that make more of few: pure functions of arrays and a generator."""

from __future__ import annotations

import numpy as np

from pipeline.heads.source import Array, Float32, Mask


def jitter_steps(features: Array, mask: Mask, reach: int, rng: np.random.Generator) -> Array:
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
    picked: Array = features[np.arange(clips)[:, None], moved]
    return picked


def drop_features(
    features: Array,
    share: float,
    fill: Float32,
    rng: np.random.Generator,
) -> Array:
    """Each clip with this share of its channels, chosen at random, set to `fill` at all steps.

    `features` (n, steps, *shape), `fill` (channels,): the training mean, which a head sees as 0.
    Channels are what is normalised apart: of landmarks every coordinate of each, of pixels the colours.
    """
    clips, steps, channels = *features.shape[:2], len(fill)
    flat = features.reshape(clips, steps, -1, channels)
    dropped = rng.random((clips, 1, 1, channels)) < share
    return np.where(dropped, fill.astype(features.dtype), flat).reshape(features.shape)
