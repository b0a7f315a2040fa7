"""What a user's model must do to be a first stage: finite vectors that no neighbour changes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError, first_line
from pipeline.features.backbones.family import Backbone

LEAST_AGREEMENT = 0.998
"""Cosine of every step's features in bfloat16 to those in float32, or `auto` means float32."""

_ROUNDED = {"float32": 1e-3, "bfloat16": 0.02, "float16": 5e-3}
"""How far roundings move a step's features, as a share of their length; more is its neighbours' doing."""


def pictures(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.uint8]:
    """(…, size, size, 3) frames as photographs are: smooth surfaces, edges, some noise. Seeded."""
    random = np.random.default_rng(seed)
    *several, height, width, _ = shape
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    frames = np.empty((int(np.prod(several)), height, width, 3), np.float32)
    for frame in frames:
        left, top = random.uniform(0, 0.6, 2)
        inside = (x > left) & (x < left + 0.4) & (y > top) & (y < top + 0.4)
        for channel in range(3):
            across, along, start = random.uniform(-1, 1, 3)
            surface = 128 + 60 * np.sin(3 * (across * x + along * y + start))
            frame[..., channel] = np.where(inside, random.uniform(0, 255), surface)
    frames += random.normal(0, 6, frames.shape).astype(np.float32)
    return np.clip(frames, 0, 255).astype(np.uint8).reshape(shape)


def require_sound(backbone: Backbone, model: str, frames: NDArray[np.uint8] | None = None) -> bool:
    """Whether the model's features are the same bits wherever a step stands in the batch.

    frames: of a whole batch; drawn ones where none are given.
    Raises `ConfigError`, which names the model, where it fails, where a feature is no finite number,
    where the shape is another than before, and where a step's features depend on its neighbours: in
    the order of steps turned around, and alone.
    """
    frames = pictures(backbone.batch_shape) if frames is None else frames
    first = _features(backbone, model, frames)
    if backbone.shape and first.shape[1:] != tuple(backbone.shape):
        raise ConfigError(
            f"the model {model} gives {first.shape[1:]} for a step, and its features were of "
            f"{tuple(backbone.shape)}: use the model that they were made with"
        )
    if not np.isfinite(first).all():
        raise ConfigError(
            f"the model {model} gives features that are not finite (NaN or infinite) for plain "
            "pictures: check its weights, and scale, mean and std"
        )
    if backbone.whole_clips:
        return True
    others = {
        "in another order": _features(backbone, model, frames[::-1])[::-1],
        "alone": _features(backbone, model, frames[:1]),
    }
    exact = True
    for how, again in others.items():
        if again.shape[1:] != first.shape[1:]:
            raise ConfigError(
                f"the model {model} gives {again.shape[1:]} for a step {how} and {first.shape[1:]} "
                "before: export one whose output has one shape"
            )
        expected = first[: len(again)]
        if not _moved(again, expected).max() <= _ROUNDED[backbone.spec.precision]:
            raise ConfigError(
                f"the model {model} gives other features for a step {how} than among its neighbours in "
                "the batch: export it for inference (model.eval(), training=False), without anything "
                "that is computed over the batch"
            )
        exact &= bool((again == expected).all())
    return exact


def cosines(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
    """Of each step's features, (n, …) each → (n,); 1 where both are zero, 0 where one is."""
    a, b = (values.reshape(len(values), -1).astype(np.float64) for values in (first, second))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    products: NDArray[np.float64] = np.einsum("ij,ij->i", a, b)
    found = np.asarray(~a.any(1) & ~b.any(1), np.float64)
    np.divide(products, lengths, out=found, where=lengths > 0)
    return found


def _moved(again: NDArray[Any], expected: NDArray[Any]) -> NDArray[np.float64]:
    """(n,): the length of the difference over that of the mean vector; NaN where one is not finite."""
    a, b = (values.reshape(len(values), -1).astype(np.float64) for values in (again, expected))
    length = np.linalg.norm(b, axis=1).mean()
    moved: NDArray[np.float64] = np.linalg.norm(a - b, axis=1) / max(length, 1e-12)
    return moved


def _features(backbone: Backbone, model: str, frames: NDArray[np.uint8]) -> NDArray[Any]:
    try:
        features = np.asarray(backbone(np.ascontiguousarray(frames)))
    except ConfigError:
        raise
    except Exception as error:  # an engine's own, or the user's code
        raise ConfigError(
            f"the model {model} fails on plain pictures ({first_line(error)}): run it by itself first"
        ) from None
    if len(features) != len(frames):
        raise ConfigError(
            f"the model {model} gives {len(features)} vectors for {len(frames)} steps: export one that "
            "gives one for each"
        )
    return features
