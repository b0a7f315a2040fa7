"""Which weights a backbone gets, whatever its family: found, fetched or made from a seed, and hashed."""

from __future__ import annotations

from pipeline.features.backbones import describe, family_of
from pipeline.features.backbones.family import Weights

__all__ = ["Weights", "resolve_weights"]


def resolve_weights(weights: str, backbone: str, *, download: bool = True) -> Weights:
    """Find the weights that a setting names, and hash them. Imports no Keras.

    weights: "imagenet" (the file that Keras caches under `KERAS_HOME` or `~/.keras`, fetched there if
        it is missing), the path of a no-top `.h5` or `.weights.h5` file, "random" or "random:SEED".
        A backbone without weights takes any of these and uses none; `pose` takes the folder that
        holds its two files and nothing else.
    download: whether a missing file may be fetched.

    Raises `WeightsNotFound`, which names both ways out, and `ConfigError` for a file that cannot
    be a Keras weights file or a seed that is no whole number.
    """
    return family_of(backbone).find_weights(describe(backbone), weights, download)
