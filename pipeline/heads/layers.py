"""The small layers that heads share: normalisation and pooling that know the mask.

Keras' `Flatten` and `GlobalMaxPooling1D` forget masks, so ours take the mask as an argument.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

PACKAGE = "pixels_once"


@keras.saving.register_keras_serializable(PACKAGE)
class Standardise(keras.layers.Layer):  # type: ignore[misc]
    """(x − mean) · scale where the mask is true, 0 in padding; always computed in float32.

    The numbers are constants of the layer, not weights: they travel in the saved configuration
    and do not count as parameters. Whatever stands in padding, NaN too, is replaced by 0.
    """

    def __init__(self, mean: Sequence[float], scale: Sequence[float], **options: Any) -> None:
        options["dtype"] = "float32"
        # Keras would refuse float16 features of 7e-4 with a lossy cast; ours is the only cast.
        super().__init__(**options, autocast=False)
        self.mean = np.asarray(mean, dtype=np.float32)
        self.scale = np.asarray(scale, dtype=np.float32)

    def call(self, features: Any, mask: Any) -> Any:
        """`features` (batch, steps, *shape), `mask` (batch, steps) bool → float32, same shape."""
        x = (ops.cast(features, "float32") - self.mean) * self.scale
        return ops.where(expand_mask(mask, len(features.shape)), x, 0.0)

    def compute_output_spec(self, features: Any, mask: Any) -> Any:
        """The shape of the features, as float32."""
        return keras.KerasTensor(features.shape, dtype="float32")

    def get_config(self) -> dict[str, Any]:
        """The configuration, with the numbers as plain lists."""
        config = super().get_config()
        config.pop("dtype", None)
        return {**config, "mean": self.mean.tolist(), "scale": self.scale.tolist()}


@keras.saving.register_keras_serializable(PACKAGE)
class ZeroPadding(keras.layers.Layer):  # type: ignore[misc]
    """Zero in padding, so that what follows cannot see it."""

    def call(self, x: Any, mask: Any) -> Any:
        """`x` (batch, steps, …), `mask` (batch, steps) bool → `x` with padding set to 0."""
        return ops.where(expand_mask(mask, len(x.shape)), x, ops.zeros_like(x))

    def compute_output_spec(self, x: Any, mask: Any) -> Any:
        """The shape and type of `x`."""
        return keras.KerasTensor(x.shape, dtype=x.dtype)


@keras.saving.register_keras_serializable(PACKAGE)
class MaskedMean(keras.layers.Layer):  # type: ignore[misc]
    """The mean over the real steps."""

    def call(self, x: Any, mask: Any) -> Any:
        """`x` (batch, steps, …), `mask` (batch, steps) bool → (batch, …)."""
        weights = ops.cast(expand_mask(mask, len(x.shape)), x.dtype)
        count = ops.maximum(ops.sum(weights, axis=1), ops.cast(1, x.dtype))
        return ops.sum(ops.where(weights > 0, x, ops.zeros_like(x)), axis=1) / count

    def compute_output_spec(self, x: Any, mask: Any) -> Any:
        """The shape of `x` without its steps."""
        return keras.KerasTensor((x.shape[0], *x.shape[2:]), dtype=x.dtype)


@keras.saving.register_keras_serializable(PACKAGE)
class MaskedMax(keras.layers.Layer):  # type: ignore[misc]
    """The maximum over the real steps; 0 where there is none."""

    def call(self, x: Any, mask: Any) -> Any:
        """`x` (batch, steps, …), `mask` (batch, steps) bool → (batch, …)."""
        real = expand_mask(mask, len(x.shape))
        top = ops.max(ops.where(real, x, ops.full_like(x, -1e4)), axis=1)
        return ops.where(ops.any(real, axis=1), top, ops.zeros_like(top))

    def compute_output_spec(self, x: Any, mask: Any) -> Any:
        """The shape of `x` without its steps."""
        return keras.KerasTensor((x.shape[0], *x.shape[2:]), dtype=x.dtype)


def expand_mask(mask: Any, rank: int) -> Any:
    """The mask (batch, steps) as bool with trailing axes of 1, to go with a tensor of this rank."""
    for _ in range(rank - 2):
        mask = ops.expand_dims(mask, -1)
    return ops.cast(mask, "bool")
