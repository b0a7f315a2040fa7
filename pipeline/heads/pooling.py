"""The layers of the head `pyramid`: statistics of segments, their signed root, scaled columns.

None of them has a trainable weight, so a linear classifier behind them can be solved for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.heads.layers import PACKAGE, _Pooling
from pipeline.heads.lean import keras

ops = keras.ops

LOWEST = -1e30
"""Stands for a step outside of a segment where its maximum is taken."""
TOUCHES = 1e-3
"""A step belongs to a segment that covers more than this share of it; less is rounding."""


@keras.saving.register_keras_serializable(PACKAGE)
class SegmentPool(_Pooling):
    """Mean, maximum and standard deviation over equal segments of the real steps.

    A level of s cuts the n real steps into s segments of n / s steps each. A step that two segments
    share counts in each by the share of it that lies there, so segments are equal, and none is empty,
    for every n from 1. Always computed in float32. deviations: whether the standard deviations are
    among the columns.
    """

    def __init__(
        self, levels: Sequence[int] = (1, 2, 4), deviations: bool = True, **options: Any
    ) -> None:
        options["dtype"] = "float32"
        super().__init__(**options, autocast=False)
        self.levels = tuple(int(level) for level in levels)
        self.deviations = bool(deviations)

    def call(self, x: Any, mask: Any) -> Any:
        """`x` (batch, steps, channels), `mask` (batch, steps) → (batch, segments · 3 · channels).

        Segment by segment, those of the first level first: means, then maxima, then deviations.
        """
        x = ops.cast(x, "float32")
        shares = self._shares(mask)
        means = ops.matmul(shares, x)
        pooled = []
        for number in range(sum(self.levels)):
            share, mean = shares[:, number], means[:, number]
            weights = ops.expand_dims(share, -1)
            top = ops.max(ops.where(weights > 0, x, LOWEST), axis=1)
            pooled += [mean, top]
            if self.deviations:
                gaps = ops.square(x - ops.expand_dims(mean, 1))
                pooled.append(ops.sqrt(ops.sum(weights * gaps, axis=1)))
        return ops.concatenate(pooled, axis=-1)

    def _shares(self, mask: Any) -> Any:
        """(batch, segments, steps): what each step contributes to a segment, in sum 1."""
        real = ops.sum(ops.cast(mask, "float32"), axis=1, keepdims=True)
        begin = ops.expand_dims(ops.arange(mask.shape[1], dtype="float32"), 0)
        shares = []
        for level in self.levels:
            for number in range(level):
                low, high = real * (number / level), real * ((number + 1) / level)
                covered = ops.minimum(begin + 1.0, high) - ops.maximum(begin, low)
                covered = ops.where(covered > TOUCHES, covered, 0.0)
                shares.append(covered / ops.sum(covered, axis=1, keepdims=True))
        return ops.stack(shares, axis=1)

    def compute_output_spec(self, x: Any, mask: Any = None) -> Any:
        """(batch, segments · 3 · channels) as float32; 2 of them without deviations."""
        columns = sum(self.levels) * (3 if self.deviations else 2) * x.shape[-1]
        return keras.KerasTensor((x.shape[0], columns), dtype="float32")

    def get_config(self) -> dict[str, Any]:
        """The configuration with the levels."""
        config = super().get_config()
        config.pop("dtype", None)
        return {**config, "levels": list(self.levels), "deviations": self.deviations}


@keras.saving.register_keras_serializable(PACKAGE)
class SignedRoot(keras.layers.Layer):  # type: ignore[misc]
    """sign(x) · √|x|: a few large values do not outweigh all others (power normalisation)."""

    def call(self, x: Any) -> Any:
        """`x` of any shape → the same shape."""
        return ops.sign(x) * ops.sqrt(ops.abs(x))


@keras.saving.register_keras_serializable(PACKAGE)
class ColumnScale(keras.layers.Layer):  # type: ignore[misc]
    """(x − centre) · factor, clipped; both are weights that whoever solves for the head sets."""

    def __init__(self, clip: float = 6.0, **options: Any) -> None:
        super().__init__(**options)
        self.clip = float(clip)

    def build(self, x_shape: Any) -> None:
        """Two weights (columns,): `centre` 0 and `factor` 1, neither trainable."""
        shape = (x_shape[-1],)
        self.centre = self.add_weight(
            shape=shape, initializer="zeros", trainable=False, name="centre"
        )
        self.factor = self.add_weight(
            shape=shape, initializer="ones", trainable=False, name="factor"
        )

    def call(self, x: Any) -> Any:
        """`x` (batch, columns) → the same shape, within ± clip."""
        return ops.clip((x - self.centre) * self.factor, -self.clip, self.clip)

    def get_config(self) -> dict[str, Any]:
        """The configuration with the clip."""
        return {**super().get_config(), "clip": self.clip}
