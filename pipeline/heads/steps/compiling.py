"""Heads that label every step, as they are trained: all their stages, each step weighed."""

from __future__ import annotations

from typing import Any

from pipeline import engine
from pipeline.heads.clips import Clips
from pipeline.heads.compiling import adam, jit_compile
from pipeline.heads.config import TrainConfig
from pipeline.heads.lean import keras
from pipeline.heads.statistics import Statistics
from pipeline.heads.zoo import build_head, head_kind
from pipeline.heads.zoo.stepwise import LAST, STAGE

TRUNCATED = 4.0
"""Above this difference of log-probabilities a change of label costs no more (MS-TCN's τ)."""
_LEAST = 1e-7


def step_head(clips: Clips, settings: TrainConfig, statistics: Statistics) -> Any:
    """The head of these resolved settings: {"features", "mask"} → (batch, steps, classes), uncompiled."""
    return build_head(
        settings.head,
        None,
        clips.shape,
        len(clips.classes),
        settings.options,
        statistics,
        precision=engine.keras_policy(settings.precision),
        seed=settings.seed,
    )


def trained_form(head: Any) -> Any:
    """The same layers, ending in the probabilities of every stage: (batch, stages, steps, classes)."""
    names = {layer.name for layer in head.layers}
    stages: list[Any] = []
    while STAGE.format(len(stages) + 1) in names:
        stages.append(head.get_layer(STAGE.format(len(stages) + 1)).output)
    stages.append(head.get_layer(LAST).output)
    return keras.Model(head.inputs, keras.ops.stack(stages, axis=1), name=head.name)


def compile_steps(
    model: Any,
    lr: float,
    *,
    smoothing: float,
    multi_label: bool,
    weight_decay: float = 0.0,
    averaging: float = 0.0,
) -> None:
    """Compile what `trained_form` returned, for targets (batch, steps, classes + 1).

    Their last number is the weight of the step, 0 in padding.
    """
    optimizer = adam(lr, weight_decay=weight_decay, averaging=averaging)
    model.compile(
        optimizer=optimizer,
        loss=_loss(smoothing, multi_label),
        metrics=[_accuracy(multi_label)],
        jit_compile=jit_compile(),
    )
    engine.compile_sooner(model)
    # All state is made before the first batch, as in `compile_head`.
    optimizer.build(model.trainable_variables)
    stages, classes = int(model.output_shape[1]), int(model.output_shape[-1])
    target, nothing = keras.ops.zeros((1, 2, classes + 1)), keras.ops.ones((1, stages, 2, classes))
    model.compute_loss(y=target, y_pred=nothing)
    model.compute_metrics(None, target, nothing)
    model.reset_metrics()


def compiled_steps(head: Any, settings: TrainConfig) -> Any:
    """The trained form of a head, compiled by a training's resolved settings."""
    configured = head_kind(settings.head).configure(settings.options)
    model = trained_form(head)
    compile_steps(
        model,
        settings.lr,
        smoothing=configured.smoothing,
        multi_label=configured.multi_label,
        weight_decay=settings.weight_decay,
        averaging=settings.weight_averaging,
    )
    return model


def step_loss(target: Any, predicted: Any, *, smoothing: float, multi_label: bool) -> Any:
    """The mean cross-entropy over the steps that count, plus `smoothing` × the truncated squared error
    between the log-probabilities of neighbouring steps; added up over the stages.

    target: (batch, steps, classes + 1), the last number the step's weight. predicted: (batch, stages,
    steps, classes). As published, the gradient of the second part reaches the later of two steps only.
    """
    truth = keras.ops.expand_dims(target[..., :-1], 1)
    weight = keras.ops.expand_dims(target[..., -1], 1)
    p = keras.ops.clip(predicted, _LEAST, 1.0)
    log = keras.ops.log(p)
    entropy = -truth * log
    if multi_label:
        entropy = entropy - (1 - truth) * keras.ops.log(keras.ops.clip(1 - predicted, _LEAST, 1.0))
    total = keras.ops.maximum(keras.ops.sum(weight), _LEAST)
    loss = keras.ops.sum(keras.ops.sum(entropy, axis=-1) * weight) / total
    if not smoothing:
        return loss
    change = log[:, :, 1:] - keras.ops.stop_gradient(log[:, :, :-1])
    squared = keras.ops.mean(keras.ops.minimum(keras.ops.square(change), TRUNCATED**2), axis=-1)
    # Between two real steps; class weights have no say in it.
    real = keras.ops.cast(weight > 0, squared.dtype)
    both = real[:, :, 1:] * real[:, :, :-1]
    return loss + smoothing * keras.ops.sum(squared * both) / keras.ops.maximum(
        keras.ops.sum(both), 1.0
    )


def _loss(smoothing: float, multi_label: bool) -> Any:
    class StepLoss(keras.losses.Loss):  # type: ignore[misc]
        """`step_loss` as Keras calls it."""

        def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
            return step_loss(y_true, y_pred, smoothing=smoothing, multi_label=multi_label)

    return StepLoss()


def _accuracy(multi_label: bool) -> Any:
    class StepTop1(keras.metrics.Mean):  # type: ignore[misc]
        """The share of steps that count whose label the last stage has right."""

        def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
            truth, last = y_true[..., :-1], y_pred[:, -1]
            if multi_label:
                right = keras.ops.mean(
                    keras.ops.cast((truth > 0.5) == (last > 0.5), "float32"), axis=-1
                )
            else:
                right = keras.ops.cast(
                    keras.ops.argmax(truth, -1) == keras.ops.argmax(last, -1), "float32"
                )
            return super().update_state(right, keras.ops.cast(y_true[..., -1] > 0, "float32"))

    return StepTop1(name="top1")
