"""The wide LSTM as the zoo builds it, and the same around Keras' own layer."""

from __future__ import annotations

from typing import Any

from pipeline.heads.clips import Clips
from pipeline.heads.layers import FastOrthogonal, Standardise
from pipeline.heads.lean import keras
from pipeline.heads.seeds import SeededLayers
from pipeline.heads.statistics import Statistics
from pipeline.heads.zoo import build_head
from pipeline.heads.zoo.recurrent import LstmConfig

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
    seeded = SeededLayers(seed, "lstm")
    keras.config.set_dtype_policy(policy)
    features = keras.Input(shape, name="features", dtype="float32")
    mask = keras.Input(shape[:1], name="mask", dtype="bool")
    x = Standardise(statistics.mean.tolist(), statistics.scale.tolist())(features, mask)
    # Keras' own start weights would take its QR decomposition a minute and a half.
    x = seeded(layers.LSTM, units, recurrent_initializer=FastOrthogonal())(x, mask=mask)
    x = seeded(layers.Dropout, config.dropout)(x)
    x = seeded(layers.Dense, config.dense, activation="relu")(x)
    x = seeded(layers.Dropout, config.dropout)(x)
    last = {"activation": "softmax", "dtype": "float32", "name": "probabilities"}
    outputs = seeded(layers.Dense, classes, **last)(x)
    keras.config.set_dtype_policy("float32")
    return keras.Model({"features": features, "mask": mask}, outputs, name="lstm")


def shape_of(shape: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    """(steps, shape of a step)."""
    return shape[0], shape[1:]
