"""Heads as Keras models, compiled for training by a training's settings."""

from __future__ import annotations

import ctypes
import gc
import itertools
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from pipeline import engine
from pipeline.heads.clips import Clips
from pipeline.heads.config import TrainConfig
from pipeline.heads.lean import keras
from pipeline.heads.statistics import Statistics
from pipeline.heads.streams import streams_in
from pipeline.heads.zoo import build_ensemble, head_kind
from pipeline.heads.zoo.kinds import FITS

_GIVE_BACK_EVERY = 8  # trainings: it takes a third of a second, and the next head a second longer
_begun = itertools.count(1)


def way_to_fit(settings: TrainConfig) -> str:
    """How the head of these settings is fitted, one of `FITS`."""
    return str(getattr(head_kind(settings.head).configure(settings.options), "fit", FITS[0]))


def compiled_head(clips: Clips, settings: TrainConfig, statistics: Statistics) -> Any:
    """The head of these resolved settings for these clips, compiled for training."""
    return compiled_ensemble(clips, settings, statistics, (settings.seed,))[0]


def compiled_ensemble(
    clips: Clips, settings: TrainConfig, statistics: Statistics, seeds: Sequence[int]
) -> tuple[Any, list[Any]]:
    """(the average of the heads of these seeds, compiled; each of these heads), with fresh weights."""
    _give_back_memory()
    model, members = build_ensemble(
        settings.head,
        clips.steps,
        clips.shape,
        len(clips.classes),
        settings.options,
        statistics,
        precision=engine.keras_policy(settings.precision),
        seeds=seeds,
        streams=[stream.stop - stream.start for stream in streams_in(clips)],
    )
    compile_head(
        model,
        settings.lr,
        settings.label_smoothing,
        weight_decay=settings.weight_decay,
        averaging=settings.weight_averaging,
        class_weights=settings.class_weights,
    )
    return model, members


def _give_back_memory() -> None:
    """Give the system what ended trainings held: a hundred of a wide head would come to gigabytes.

    A Keras model and its compiled step hold each other until Python looks for such circles, which it
    does seldom; JAX keeps what it has compiled; and glibc keeps freed memory wherever something behind it
    is still used.
    """
    if next(_begun) % _GIVE_BACK_EVERY:
        return
    engine.forget_compiled()
    gc.collect()
    with suppress(OSError, AttributeError):  # another C library has no such function
        ctypes.CDLL(None).malloc_trim(0)


def compile_head(
    model: Any,
    lr: float,
    label_smoothing: float = 0.0,
    *,
    weight_decay: float = 0.0,
    averaging: float = 0.0,
    class_weights: bool = False,
) -> None:
    """Compile a head for training: Adam with a clipped gradient, cross-entropy, accuracy.

    class_weights: the weights that clips are given are their classes', which accuracy does not count
    weight_decay: of kernels, decoupled from the gradient (AdamW); averaging: the share that a running
    average of the weights, kept in the optimizer, keeps at each step
    """
    optimizer = adam(lr, weight_decay=weight_decay, averaging=averaging)
    top1 = keras.metrics.CategoricalAccuracy(name="top1")
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=label_smoothing),
        **{"metrics" if class_weights else "weighted_metrics": [top1]},
        jit_compile=jit_compile(),
    )
    engine.compile_sooner(model)
    # All state is made before the first batch: TensorFlow traces a step that makes some twice.
    optimizer.build(model.trainable_variables)
    nothing = keras.ops.zeros((1, int(model.output_shape[-1])))
    model.compute_loss(y=nothing, y_pred=nothing)
    model.compute_metrics(None, nothing, nothing)
    model.reset_metrics()


def adam(lr: float, *, weight_decay: float = 0.0, averaging: float = 0.0) -> Any:
    """Adam with a clipped gradient; its options as `compile_head` has them."""
    further: dict[str, Any] = {}
    if averaging:
        further |= {"use_ema": True, "ema_momentum": averaging}
    if weight_decay:
        further["weight_decay"] = weight_decay
    optimizer = keras.optimizers.Adam(lr, global_clipnorm=5.0, **further)
    if weight_decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def jit_compile() -> Any:
    """What Keras is told of XLA: it slows the recurrence on a CPU (3 against 12 clips/s); JAX is XLA."""
    return "auto" if keras.backend.backend() == "jax" else False
