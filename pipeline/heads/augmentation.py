"""Changes to training clips that make more of few: pure functions of arrays and a generator."""

from __future__ import annotations

import numpy as np

from pipeline.heads.source import Array, Float32, Mask

MOST_MASKED = 0.9
"""A clip keeps at least a tenth of its steps."""


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


def mask_steps(
    features: Array,
    mask: Mask,
    share: float,
    fill: Float32,
    rng: np.random.Generator,
) -> Array:
    """Each clip with one span of its real steps, of random length up to this share, set to `fill`.

    `features` (n, steps, *shape), `fill` (channels,): the training mean, which a head sees as 0. The
    mask stays: a gap within a clip would not be padding.
    """
    clips, steps, channels = *features.shape[:2], len(fill)
    lengths = mask.sum(axis=1)
    longest = np.floor(min(share, MOST_MASKED) * lengths)
    spans = np.floor(rng.random(clips) * (longest + 1)).astype(np.int64)
    begin = np.floor(rng.random(clips) * (lengths - spans + 1)).astype(np.int64)
    places = np.arange(steps)[None, :]
    masked = (places >= begin[:, None]) & (places < (begin + spans)[:, None])
    flat = features.reshape(clips, steps, -1, channels)
    masked_flat = np.where(masked[..., None, None], fill.astype(features.dtype), flat)
    return masked_flat.reshape(features.shape)


def mix_clips(
    features: Array,
    mask: Mask,
    targets: Float32,
    alpha: float,
    rng: np.random.Generator,
) -> tuple[Array, Float32]:
    """Each clip as a weighted mean with another of the batch, and its target in the same weights.

    The weight of the clip itself is max(λ, 1 − λ), λ of Beta(alpha, alpha) (mixup, H. Zhang et al.,
    2018). The other is stretched or shortened to the clip's real steps, so the mask stays.
    `features` (n, steps, *shape), `targets` (n, classes) → float32 of both shapes.
    """
    clips, steps = mask.shape
    lengths = mask.sum(axis=1)
    drawn = rng.beta(alpha, alpha, size=clips)
    weight = np.maximum(drawn, 1 - drawn).astype(np.float32)
    other = rng.permutation(clips)
    places = (np.arange(steps) + 0.5) * (lengths[other] / np.maximum(lengths, 1))[:, None]
    at = np.minimum(places.astype(np.int64), np.maximum(lengths[other] - 1, 0)[:, None])
    theirs = features[other[:, None], at].astype(np.float32)
    own = weight.reshape(-1, *(1,) * (features.ndim - 1))
    mixed = np.where(
        mask.reshape(*mask.shape, *(1,) * (features.ndim - 2)),
        own * features.astype(np.float32) + (1 - own) * theirs,
        features.astype(np.float32),
    )
    return mixed, weight[:, None] * targets + (1 - weight[:, None]) * targets[other]
