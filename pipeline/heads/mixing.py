"""The layers that join streams inside a model: a stream's channels, and several heads pooled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.heads.layers import PACKAGE
from pipeline.heads.lean import keras
from pipeline.heads.seeds import SeededLayers
from pipeline.heads.weighing import ROOM

ops = keras.ops

PROJECTED = 256
"""Every stream that is joined early is projected to at most so many channels."""


@keras.saving.register_keras_serializable(PACKAGE)
class Channels(keras.layers.Layer):  # type: ignore[misc]
    """The channels `start` to `stop` of every step."""

    def __init__(self, start: int, stop: int, **options: Any) -> None:
        # Features of 7e-4 would be lost in a cast to bfloat16.
        super().__init__(**options, autocast=False)
        self.start, self.stop = int(start), int(stop)

    def call(self, x: Any) -> Any:
        """`x` (…, channels) → (…, stop − start)."""
        return x[..., self.start : self.stop]

    def compute_output_spec(self, x: Any) -> Any:
        """The shape with that many channels."""
        return keras.KerasTensor((*x.shape[:-1], self.stop - self.start), dtype=x.dtype)

    def get_config(self) -> dict[str, Any]:
        """The configuration with both ends."""
        return {**super().get_config(), "start": self.start, "stop": self.stop}


@keras.saving.register_keras_serializable(PACKAGE)
class Pooled(keras.layers.Layer):  # type: ignore[misc]
    """The weighted geometric mean of several heads' probabilities, in float32 (`weighing.pooled`).

    No gradient changes the weight `shares`.
    """

    def __init__(self, heads: int, **options: Any) -> None:
        options["dtype"] = "float32"
        super().__init__(**options)
        self.heads = int(heads)

    def build(self, shapes: Any) -> None:
        """One weight `shares` (heads,), equal at first."""
        self.shares = self.add_weight(
            shape=(self.heads,),
            initializer=keras.initializers.Constant(1 / self.heads),
            trainable=False,
            name="shares",
        )

    def call(self, probabilities: Any) -> Any:
        """A list of (batch, classes) → (batch, classes)."""
        logs = 0.0
        for i, each in enumerate(probabilities):
            spread = (1 - ROOM) * each + ROOM / each.shape[-1]
            logs = logs + self.shares[i] * ops.log(spread)
        return ops.softmax(logs, axis=-1)

    def compute_output_spec(self, probabilities: Any) -> Any:
        """The shape of one head's."""
        return keras.KerasTensor(probabilities[0].shape, dtype="float32")

    def get_config(self) -> dict[str, Any]:
        """The configuration with the number of heads."""
        config = super().get_config()
        config.pop("dtype", None)
        return {**config, "heads": self.heads}


def joint_model(
    heads: Sequence[tuple[Any, slice]],
    shares: Sequence[float],
    steps: int,
    channels: int,
    name: str,
) -> Any:
    """One model of several heads: {"features" (n, steps, channels), "mask"} → their pooled probabilities.

    heads: (model, its channels) of every stream that takes part; shares: their weights, in sum 1
    """
    features = keras.Input((steps, channels), name="features", dtype="float32")
    mask = keras.Input((steps,), name="mask", dtype="bool")
    outputs = []
    for number, (model, of) in enumerate(heads, start=1):
        part = Channels(of.start, of.stop, name=f"channels_{number}", dtype="float32")(features)
        head = keras.Model(model.input, model.output, name=f"head_{number}")
        outputs.append(head({"features": part, "mask": mask}))
    pool = Pooled(len(heads), name="joined")
    probabilities = pool(outputs)
    pool.set_weights([np.asarray(shares, np.float32)])
    return keras.Model({"features": features, "mask": mask}, probabilities, name=name)


def projected(x: Any, mask: Any, widths: Sequence[int], seeded: SeededLayers) -> Any:
    """Each stream of a normalised sequence through a dense layer and layer normalisation of its own.

    x: (batch, steps, Σ widths) → (batch, steps, Σ min(width, PROJECTED)), zero in padding
    """
    from pipeline.heads.layers import ZeroPadding

    parts, start = [], 0
    for number, width in enumerate(widths, start=1):
        part = Channels(start, start + width, name=f"channels_{number}")(x)
        part = seeded.dense(part, min(width, PROJECTED), activation=None, name=f"project_{number}")
        parts.append(keras.layers.LayerNormalization(name=f"level_{number}")(part))
        start += width
    return ZeroPadding(name="joined")(keras.layers.Concatenate(name="streams")(parts), mask)
