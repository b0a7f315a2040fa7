"""One head trained on one split, and its predictions on the clips that it has not seen."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline import engine
from pipeline.errors import ConfigError
from pipeline.heads import cuts
from pipeline.heads.checkpoint import Checkpoint
from pipeline.heads.clips import Clips
from pipeline.heads.config import TrainConfig
from pipeline.heads.epochs import Callbacks, Fit, Progress, fit_head
from pipeline.heads.inference import predict_batch, predict_probabilities
from pipeline.heads.leakage import require_apart
from pipeline.heads.lean import keras
from pipeline.heads.measures import Probabilities
from pipeline.heads.solving import solve_head
from pipeline.heads.source import Rows
from pipeline.heads.splits import Split
from pipeline.heads.statistics import Statistics, masked_statistics
from pipeline.heads.streams import streams_in
from pipeline.heads.zoo import build_head, head_kind
from pipeline.heads.zoo.kinds import FITS

INNER_FOLDS = 3
"""Inner folds that the number of epochs is chosen by: each costs a training."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fitted:
    """A trained head with its training history and its predictions.

    fit: what it was trained with; its model has the best weights
    parts: `test` and `validation` → (positions (n,), probabilities (n, classes))
    streams: of streams that are joined late, each one's name, weight, best epoch, and top-1 alone: `top1`
        of the test clips, `inner_top1` of the training clips in inner folds
    """

    fit: Fit
    progress: Progress
    parts: Mapping[str, tuple[Rows, Probabilities]]
    seconds: float
    inference_clips_per_second: float
    streams: tuple[Mapping[str, Any], ...] = ()


def fit_split(
    clips: Clips,
    split: Split,
    settings: TrainConfig,
    *,
    checkpoint: Checkpoint | None = None,
    callbacks: Callbacks | None = None,
    last_epoch: int = 0,
) -> Fitted:
    """Train one head on one split by resolved settings; the test clips are predicted once, at the end.

    Resumes from `checkpoint` if it holds a state (a head that is solved for leaves none: it is solved
    again). After Ctrl-C the head is the best so far, and
    `checkpoint` has the state of the last whole epoch, for the caller to save. Raises `LeakError`
    if a test or validation clip is also trained on, `ConfigError` if the training diverges, and
    `KeyboardInterrupt` if it is stopped before the end of its first epoch.
    """
    require_apart(clips, split)
    started = time.perf_counter()
    fit = _prepared(clips, split, settings, last_epoch)
    progress, after_epoch = Progress(lr=settings.lr), None
    callbacks = callbacks or Callbacks()
    if checkpoint is not None:
        after_epoch = checkpoint.after_epoch
        progress = checkpoint.load(fit.model) if checkpoint.exists else progress
    try:
        if way_to_fit(settings) == "solved":
            solve_head(fit, progress, callbacks)
        else:
            if settings.stopping == "inner" and not last_epoch:
                progress.choice = progress.choice or _inner_epochs(fit, callbacks)
                fit = replace(fit, last_epoch=int(progress.choice["epochs"]))
            fit_head(fit, progress, callbacks, after_epoch)
    except KeyboardInterrupt as interrupt:
        # The best model is worth more than the signal: the caller finishes, then looks at stopped.
        progress.stop(interrupt)
    if not progress.best_weights and progress.stopped:
        raise KeyboardInterrupt(
            "stopped before the first epoch ended: there is nothing to keep", progress.stopped_by
        )
    if not progress.best_weights:
        raise ConfigError(
            f"the training of {settings.head} diverged, its loss is not a number: lower lr "
            f"({settings.lr})"
        )
    parts = {}
    for name, rows in (("test", split.test), ("validation", split.validation)):
        at = clips.positions(rows)
        known = progress.validation if name == "validation" else None
        if known is None:
            known = predict_probabilities(fit.model, clips, at, settings.train_batch)
        parts[name] = at, known
    return Fitted(
        fit=fit,
        progress=progress,
        parts=parts,
        seconds=time.perf_counter() - started,
        inference_clips_per_second=inference_rate(fit),
    )


def _prepared(clips: Clips, split: Split, settings: TrainConfig, last_epoch: int = 0) -> Fit:
    """What a fresh head is trained with, by the statistics of the training clips."""
    statistics = masked_statistics(clips, clips.positions(split.train))
    return Fit(
        model=compiled_head(clips, settings, statistics),
        clips=clips,
        split=split,
        settings=settings,
        statistics=statistics,
        last_epoch=last_epoch,
    )


def _inner_epochs(fit: Fit, callbacks: Callbacks) -> dict[str, Any]:
    """The number of epochs of the lowest mean loss over inner folds of the training clips.

    Each fold trains for all epochs without the others' clips. Too few clips for folds: all epochs.
    """
    clips, split, settings = fit.clips, fit.split, fit.settings
    parts = cuts.inner_folds(
        clips.table.iloc[clips.positions(split.train)], INNER_FOLDS, settings.seed
    )
    if not parts.any():
        return {"epochs": settings.epochs, "folds": 0, "tried": []}
    losses, folds = [], int(parts.max()) + 1
    for part in range(folds):
        inner = replace(
            split, train=split.train[parts != part], validation=split.train[parts == part]
        )
        progress = Progress(lr=settings.lr)
        fit_head(
            _prepared(clips, inner, replace(settings, stopping="fixed")),
            progress,
            Callbacks(stop=callbacks.stop),
        )
        if progress.stopped:
            raise KeyboardInterrupt("stopped in the inner folds")
        losses.append([report.val_loss for report in progress.history])
    mean = np.average(losses, axis=0, weights=np.bincount(parts))
    return {
        "epochs": int(np.nanargmin(mean)) + 1 if np.isfinite(mean).any() else settings.epochs,
        "folds": folds,
        "tried": [{"epochs": number, "loss": loss} for number, loss in enumerate(mean.tolist(), 1)],
    }


def way_to_fit(settings: TrainConfig) -> str:
    """How the head of these settings is fitted, one of `FITS`."""
    return str(getattr(head_kind(settings.head).configure(settings.options), "fit", FITS[0]))


def compiled_head(clips: Clips, settings: TrainConfig, statistics: Statistics) -> Any:
    """The head of these resolved settings for these clips, compiled for training."""
    model = build_head(
        settings.head,
        clips.steps,
        clips.shape,
        len(clips.classes),
        settings.options,
        statistics,
        precision=engine.keras_policy(settings.precision),
        seed=settings.seed,
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
    return model


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
    # XLA slows the recurrence on a CPU (3 against 12 clips/s for the wide LSTM); JAX is XLA.
    jit_compile = "auto" if keras.backend.backend() == "jax" else False
    further: dict[str, Any] = {}
    if averaging:
        further |= {"use_ema": True, "ema_momentum": averaging}
    if weight_decay:
        further["weight_decay"] = weight_decay
    optimizer = keras.optimizers.Adam(lr, global_clipnorm=5.0, **further)
    if weight_decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    top1 = keras.metrics.CategoricalAccuracy(name="top1")
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=label_smoothing),
        **{"metrics" if class_weights else "weighted_metrics": [top1]},
        jit_compile=jit_compile,
    )
    # All state is made before the first batch: TensorFlow traces a step that makes some twice.
    optimizer.build(model.trainable_variables)
    nothing = keras.ops.zeros((1, int(model.output_shape[-1])))
    model.compute_loss(y=nothing, y_pred=nothing)
    model.compute_metrics(None, nothing, nothing)
    model.reset_metrics()


def inference_rate(fit: Fit) -> float:
    """Clips per second of a compiled prediction: the better of two batches."""
    batch = fit.settings.train_batch
    train = fit.clips.positions(fit.split.train)
    features, mask, at = next(fit.clips.batches(train, batch))
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        predict_batch(fit.model, features, mask, batch)
        seconds.append(time.perf_counter() - started)
    return len(at) / min(seconds)
