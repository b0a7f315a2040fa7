"""The wide LSTM as the zoo builds it, and the same around Keras' own layer."""

from __future__ import annotations

from typing import Any

from pipeline.heads.clips import Clips
from pipeline.heads.initialisers import FastOrthogonal
from pipeline.heads.layers import Standardise
from pipeline.heads.lean import keras
from pipeline.heads.statistics import Statistics
from pipeline.heads.zoo import build_head
from pipeline.heads.zoo.lstm import LstmConfig

layers = keras.layers


def wide_lstm(
    clips: Clips,
    statistics: Statistics,
    *,
    units: int,
    policy: str,
    seed: int,
    keras_own: bool,
) -> Any:
    """An uncompiled LSTM head for these clips; equal seeds give equal start weights."""
    config = LstmConfig(units=units, dense=max(units // 4, 1))
    shape, classes = (clips.steps, *clips.shape), len(clips.classes)
    if not keras_own:
        return build_head(
            "lstm", *shape_of(shape), classes, config, statistics, precision=policy, seed=seed
        )
    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(policy)
    features = keras.Input(shape, name="features", dtype="float32")
    mask = keras.Input(shape[:1], name="mask", dtype="bool")
    x = Standardise(statistics.mean.tolist(), statistics.scale.tolist())(features, mask)
    # Keras' own start weights would take its QR decomposition a minute and a half.
    x = layers.LSTM(units, recurrent_initializer=FastOrthogonal())(x, mask=mask)
    x = layers.Dropout(config.dropout)(x)
    x = layers.Dense(config.dense, activation="relu")(x)
    x = layers.Dropout(config.dropout)(x)
    outputs = layers.Dense(classes, activation="softmax", dtype="float32", name="probabilities")(x)
    keras.config.set_dtype_policy("float32")
    return keras.Model({"features": features, "mask": mask}, outputs, name="lstm")


def shape_of(shape: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    """(steps, shape of a step)."""
    return shape[0], shape[1:]
