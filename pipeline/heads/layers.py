"""The small layers that heads share: normalisation and pooling that know the mask.

Keras' `Flatten` and `GlobalMaxPooling1D` forget masks, so ours take the mask as an argument.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.heads.lean import keras
from pipeline.heads.seeds import derived_seed, seeded_initialiser

ops = keras.ops


PACKAGE = "pixels_once"


@keras.saving.register_keras_serializable(PACKAGE)
class FastOrthogonal(keras.initializers.Initializer):  # type: ignore[misc]
    """A random matrix with orthonormal rows or columns, in O(n² log n).

    Keras' `Orthogonal` takes the QR decomposition of a Gaussian matrix, O(n³): a minute and a half
    for an LSTM of 4,096 units, at every build and every load. Here randomly chosen unit vectors
    pass twice through random signs and a discrete cosine transform, which keeps them orthonormal
    and makes their entries all but Gaussian (as in N. Ailon and B. Chazelle, 2006). Equal seeds give
    equal matrices; without one every call returns another.
    """

    def __init__(self, seed: int | None = None) -> None:
        self.seed = seed

    def get_config(self) -> dict[str, Any]:
        """The seed."""
        return {"seed": self.seed}

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        """A tensor of this shape; all axes but the last are rows, as in Keras' `Orthogonal`."""
        from scipy.fft import dct

        rows, columns = int(np.prod(shape[:-1])), int(shape[-1])
        few, many = min(rows, columns), max(rows, columns)
        rng = np.random.default_rng(self.seed)
        signs = np.array([-1, 1], dtype=np.float32)
        x = np.zeros((few, many), dtype=np.float32)
        x[np.arange(few), rng.permutation(many)[:few]] = 1
        for _ in range(2):
            x *= rng.choice(signs, size=many)
            x = dct(x, axis=1, norm="ortho", overwrite_x=True, workers=-1)
        x *= rng.choice(signs, size=many)
        x = x if rows <= columns else x.T
        dtype = dtype or keras.config.floatx()
        return keras.ops.convert_to_tensor(np.ascontiguousarray(x).reshape(shape), dtype=dtype)


@keras.saving.register_keras_serializable(PACKAGE)
class Standardise(keras.layers.Layer):  # type: ignore[misc]
    """(x − mean) · scale where the mask is true, 0 in padding; always computed in float32.

    The numbers are constants of the layer, not weights: they travel in the saved configuration
    and do not count as parameters. Any value in padding, NaN too, is replaced by 0.
    """

    def __init__(self, mean: Sequence[float], scale: Sequence[float], **options: Any) -> None:
        options["dtype"] = "float32"
        # Keras would lose float16 features of 7e-4 in a lossy cast; `call` has the only cast.
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


class _MaskAware(keras.layers.Layer):  # type: ignore[misc]
    """Takes its mask as an argument; a mask that Keras attached is dropped, without a warning."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.supports_masking = True

    def compute_mask(self, *inputs: Any, **masks: Any) -> None:
        """None: every layer of a head is passed the mask explicitly."""

    def compute_output_spec(self, x: Any, mask: Any = None) -> Any:
        """The shape and type of `x`."""
        return keras.KerasTensor(x.shape, dtype=x.dtype)


class _Pooling(_MaskAware):
    """Makes one step of all real ones."""

    def compute_output_spec(self, x: Any, mask: Any = None) -> Any:
        """The shape of `x` without its steps."""
        return keras.KerasTensor((x.shape[0], *x.shape[2:]), dtype=x.dtype)


class _Seeded(_MaskAware):
    """Has start weights of a seed that its configuration keeps."""

    def __init__(self, seed: int = 0, **options: Any) -> None:
        super().__init__(**options)
        self.seed = seed

    def get_config(self) -> dict[str, Any]:
        """The configuration with the start weights' seed."""
        return {**super().get_config(), "seed": self.seed}


@keras.saving.register_keras_serializable(PACKAGE)
class ZeroPadding(_MaskAware):
    """Zero in padding, so that what follows cannot see it."""

    def call(self, x: Any, mask: Any) -> Any:
        """`x` (batch, steps, …), `mask` (batch, steps) bool → `x` with padding set to 0."""
        return ops.where(expand_mask(mask, len(x.shape)), x, ops.zeros_like(x))


@keras.saving.register_keras_serializable(PACKAGE)
class MaskedMean(_Pooling):
    """The mean over the real steps."""

    def call(self, x: Any, mask: Any) -> Any:
        """`x` (batch, steps, …), `mask` (batch, steps) bool → (batch, …)."""
        weights = ops.cast(expand_mask(mask, len(x.shape)), x.dtype)
        count = ops.maximum(ops.sum(weights, axis=1), ops.cast(1, x.dtype))
        return ops.sum(ops.where(weights > 0, x, ops.zeros_like(x)), axis=1) / count


@keras.saving.register_keras_serializable(PACKAGE)
class MaskedMax(_Pooling):
    """The maximum over the real steps; 0 where there is none."""

    def call(self, x: Any, mask: Any) -> Any:
        """`x` (batch, steps, …), `mask` (batch, steps) bool → (batch, …)."""
        real = expand_mask(mask, len(x.shape))
        top = ops.max(ops.where(real, x, ops.full_like(x, -1e4)), axis=1)
        return ops.where(ops.any(real, axis=1), top, ops.zeros_like(top))


@keras.saving.register_keras_serializable(PACKAGE)
class Positions(_Seeded):
    """A learned vector for every place in the sequence, added."""

    def build(self, x_shape: Any) -> None:
        """One weight `places` (steps, width)."""
        self.places = self.add_weight(
            shape=tuple(x_shape[1:]),
            initializer=keras.initializers.RandomNormal(stddev=0.02, seed=self.seed),
            name="places",
        )

    def call(self, x: Any) -> Any:
        """`x` (batch, steps, width) → the same shape."""
        return x + ops.cast(self.places, x.dtype)


@keras.saving.register_keras_serializable(PACKAGE)
class AttentionPool(_Seeded, _Pooling):
    """The steps' mean under weights that softmax makes of a learned score of each step."""

    def build(self, x_shape: Any) -> None:
        """One weight `score` (width, 1)."""
        self.score = self.add_weight(
            shape=(x_shape[-1], 1),
            initializer=keras.initializers.GlorotUniform(seed=self.seed),
            name="score",
        )

    def call(self, x: Any, mask: Any) -> Any:
        """`x` (batch, steps, width), `mask` (batch, steps) bool → (batch, width)."""
        scores = ops.squeeze(ops.matmul(ops.tanh(x), ops.cast(self.score, x.dtype)), -1)
        scores = ops.where(mask, ops.cast(scores, "float32"), -1e9)
        weights = ops.cast(ops.softmax(scores, axis=-1), x.dtype)
        return ops.sum(x * ops.expand_dims(weights, -1), axis=1)


@keras.saving.register_keras_serializable(PACKAGE)
class MultiHeadAttention(keras.layers.MultiHeadAttention):  # type: ignore[misc]
    """`keras.layers.MultiHeadAttention` whose projections start apart under one seed.

    Keras gives each of them a copy of the kernel's initialiser, so that with a seed queries, keys
    and values would start with equal weights.
    """

    def build(self, query_shape: Any, value_shape: Any, key_shape: Any = None) -> None:
        """Keras' own weights; each projection's kernel from a seed of its own."""
        super().build(query_shape, value_shape, key_shape)
        start = self._kernel_initializer
        seed = start.get_config()["seed"] or 0
        for name in ("query", "key", "value", "output"):
            kernel = getattr(self, f"{name}_dense").kernel
            own = seeded_initialiser(start, derived_seed(seed, name))
            kernel.assign(own(kernel.shape, dtype=kernel.dtype))


def expand_mask(mask: Any, rank: int) -> Any:
    """The mask (batch, steps) as bool with trailing axes of 1, to go with a tensor of this rank."""
    for _ in range(rank - 2):
        mask = ops.expand_dims(mask, -1)
    return ops.cast(mask, "bool")
