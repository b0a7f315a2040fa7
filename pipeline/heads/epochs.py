"""The training loop: epochs over clips, the best weights by validation loss, a stop between batches.

A loop over `train_on_batch` instead of `model.fit`, because it must stop between batches, keep its
best weights whatever happens, and resume exactly; `fit` offers these one at a time.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.heads.augmentation import drop_features, jitter_steps, mask_steps, mix_clips
from pipeline.heads.batches import filled_up, fills_up
from pipeline.heads.clips import Clips
from pipeline.heads.config import TrainConfig
from pipeline.heads.inference import predict_probabilities
from pipeline.heads.measures import (
    Probabilities,
    class_weights,
    cross_entropy,
    predicted_classes,
)
from pipeline.heads.source import Array, Float32, Mask, Rows
from pipeline.heads.splits import Split
from pipeline.heads.statistics import Statistics


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochReport:
    """The figures of one epoch. `epoch` counts from 1; rates count training clips per second.

    stream: which of `streams` that are joined late the epoch is of
    member: which head of an ensemble, from 0, of `members`
    refit: whether it is of the training on training and validation clips together
    """

    epoch: int
    epochs: int
    loss: float
    top1: float
    val_loss: float
    val_top1: float
    lr: float
    seconds: float
    clips_per_second: float
    best: bool
    fold: int = 0
    folds: int = 1
    stream: int = 1
    streams: int = 1
    member: int = 0
    members: int = 1
    refit: bool = False


OnEpoch = Callable[[EpochReport], None]
Stop = threading.Event
TrainingBatch = tuple[Array, Mask, Rows, Float32]
"""features, mask, positions, targets (n, classes)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Callbacks:
    """Called during a training.

    on_epoch: called after every epoch
    stop: an event that ends the training within a batch
    """

    on_epoch: OnEpoch | None = None
    stop: Stop | None = None

    @property
    def stopping(self) -> bool:
        """Whether the training was asked to stop."""
        return self.stop is not None and self.stop.is_set()


@dataclass(slots=True, kw_only=True)
class Progress:
    """The state of a training beside its model: enough to resume it.

    best_weights: the model's weights after `best_epoch`
    stopped_by: the signal that stopped it (SIGINT, SIGTERM); empty if none did
    choice: of a head that is solved for, what was chosen by inner folds, with the figures
    validation: predictions of the validation clips, if they are not those of the final weights
    held_out: of a head that is solved for, predictions of the training clips, each without its inner fold
    """

    history: list[EpochReport] = field(default_factory=list)
    best_loss: float = float("inf")
    best_epoch: int = 0
    best_weights: list[Array] = field(default_factory=list)
    stopped: bool = False
    stopped_by: str = ""
    lr: float = 0.0
    choice: Mapping[str, Any] = field(default_factory=dict)
    validation: Probabilities | None = None
    held_out: Probabilities | None = None

    def stop(self, interrupt: KeyboardInterrupt) -> None:
        """Record that the training was stopped, and by which signal."""
        self.stopped = True
        self.stopped_by = "SIGTERM" if "SIGTERM" in interrupt.args else "SIGINT"

    @property
    def epoch(self) -> int:
        """The number of finished epochs."""
        return len(self.history)

    @property
    def clips_per_second(self) -> float:
        """The median over the epochs; the first, which compiles, counts only if it is alone."""
        rates = [report.clips_per_second for report in self.history[1:] or self.history]
        return float(np.median(rates)) if rates else 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fit:
    """What one head is trained with: everything that decides its weights.

    model: compiled for training
    settings: resolved, without a 0 or `auto` left
    statistics: of the training clips
    last_epoch: where the training ends (0: after `settings.epochs`)
    member: which head of an ensemble of `settings.ensemble`
    refit: whether `split.train` is the training and validation clips together
    """

    model: Any
    clips: Clips
    split: Split
    settings: TrainConfig
    statistics: Statistics
    last_epoch: int = 0
    member: int = 0
    refit: bool = False


def fit_head(
    fit: Fit,
    progress: Progress,
    callbacks: Callbacks,
    after_epoch: Callable[[Any, Progress], None] | None = None,
    passes: Passes | None = None,
) -> None:
    """Train a head and leave its best weights in the model.

    Resumes from `progress`, whose state must be in the model. Without validation clips all epochs are
    run and the last weights are kept. `after_epoch(model, progress)` may save both. A KeyboardInterrupt,
    too, leaves with the best weights in the model, for the caller to save.
    """
    settings, split = fit.settings, fit.split
    train, validation = fit.clips.positions(split.train), fit.clips.positions(split.validation)
    epochs = fit.last_epoch or settings.epochs
    judging = bool(len(validation)) and settings.stopping == "validation"
    passes = passes or Passes(train=_train_epoch, validate=_validate)
    try:
        while progress.epoch < epochs and not (judging and _patience_over(progress, settings)):
            epoch, started = progress.epoch, time.perf_counter()
            rate = _learning_rate(settings, progress)
            fit.model.optimizer.learning_rate = rate
            logs, seen = passes.train(fit, train, epoch, callbacks)
            seconds = time.perf_counter() - started
            if callbacks.stopping:
                progress.stopped = True
                break
            with _averaged(fit):
                loss, top1 = passes.validate(fit, validation)
                finite = np.isfinite(logs["loss"])
                judged = loss if judging else -float(epoch) if finite else float("nan")
                if judged < progress.best_loss:
                    progress.best_loss, progress.best_epoch = judged, epoch + 1
                    progress.best_weights = fit.model.get_weights()
            report = EpochReport(
                epoch=epoch + 1,
                epochs=epochs,
                loss=logs["loss"],
                top1=logs["top1"],
                val_loss=loss,
                val_top1=top1,
                lr=rate,
                seconds=seconds,
                clips_per_second=seen / max(seconds, 1e-9),
                best=progress.best_epoch == epoch + 1,
                fold=split.fold,
                folds=split.folds,
                member=fit.member,
                members=settings.ensemble,
                refit=fit.refit,
            )
            progress.history.append(report)
            # Before `on_epoch`, where Ctrl-C may arrive.
            if after_epoch is not None:
                after_epoch(fit.model, progress)
            if callbacks.on_epoch is not None:
                callbacks.on_epoch(report)
    finally:
        if progress.best_weights:
            fit.model.set_weights(progress.best_weights)


@contextlib.contextmanager
def _averaged(fit: Fit) -> Iterator[None]:
    """Within it the model has the running average of its weights, if there is one."""
    if not fit.settings.weight_averaging:
        yield
        return
    weights = fit.model.get_weights()
    fit.model.optimizer.finalize_variable_values(fit.model.trainable_variables)
    # Copies: JAX gives the buffers that a model predicts with away, and the average is to be kept.
    fit.model.set_weights([np.array(weight) for weight in fit.model.get_weights()])
    try:
        yield
    finally:
        fit.model.set_weights(weights)


def _train_epoch(
    fit: Fit, train: Rows, epoch: int, callbacks: Callbacks
) -> tuple[dict[str, float], int]:
    """(mean loss and top1, clips seen) of one epoch over the training clips."""
    clips = fit.clips
    weights = class_weights(clips.labels[train], len(clips.classes))
    sums, seen = {"loss": 0.0, "top1": 0.0}, 0
    fills = fills_up(fit.settings) and len(train) > fit.settings.train_batch
    for features, mask, at, targets in _training_batches(fit, train, epoch):
        if callbacks.stopping:
            break
        counts = targets @ weights if fit.settings.class_weights else None
        if fills:
            rows, counts = filled_up(len(at), fit.settings.train_batch)
            if len(at) < len(rows):
                features, mask, targets = features[rows], mask[rows], targets[rows]
        logs = fit.model.train_on_batch(
            {"features": features, "mask": mask}, targets, counts, return_dict=True
        )
        seen += len(at)
        for name in sums:
            sums[name] += float(logs[name]) * len(at)
    return {name: total / max(seen, 1) for name, total in sums.items()}, seen


def _training_batches(fit: Fit, train: Rows, epoch: int) -> Iterator[TrainingBatch]:
    """The training clips in this epoch's order, augmented."""
    settings, fill = fit.settings, fit.statistics.mean
    one_hot = np.eye(len(fit.clips.classes), dtype=np.float32)
    rng = np.random.default_rng((settings.seed, epoch, 1))
    batches = fit.clips.training_batches(train, settings.train_batch, settings.seed, epoch)
    for features, mask, at in batches:
        if settings.step_jitter:
            features = jitter_steps(features, mask, settings.step_jitter, rng)
        if settings.step_masking:
            features = mask_steps(features, mask, settings.step_masking, fill, rng)
        if settings.feature_dropout:
            features = drop_features(features, settings.feature_dropout, fill, rng)
        targets = one_hot[fit.clips.labels[at]]
        if settings.mixup:
            features, targets = mix_clips(features, mask, targets, settings.mixup, rng)
        yield features, mask, at, targets


def _validate(fit: Fit, positions: Rows) -> tuple[float, float]:
    """(loss, top-1) on the clips at `positions`; NaN without clips."""
    if not len(positions):
        return float("nan"), float("nan")
    batch = fit.settings.train_batch
    probabilities = predict_probabilities(fit.model, fit.clips, positions, batch)
    labels = fit.clips.labels[positions]
    hits = predicted_classes(probabilities) == labels
    return cross_entropy(probabilities, labels), float(hits.mean())


def _patience_over(progress: Progress, settings: TrainConfig) -> bool:
    return progress.epoch - progress.best_epoch >= settings.patience


def _learning_rate(settings: TrainConfig, progress: Progress) -> float:
    """The rate of the next epoch by the schedule; `plateau` keeps its own in `progress.lr`."""
    warmed = (progress.epoch + 1) / (settings.warmup * settings.epochs + 1)
    return min(warmed, 1.0) * _scheduled(settings, progress)


def _scheduled(settings: TrainConfig, progress: Progress) -> float:
    lr = settings.lr
    if settings.schedule == "cosine":
        share = progress.epoch / settings.epochs
        return float(lr * (0.01 + 0.99 * (1 + np.cos(np.pi * share)) / 2))
    if settings.schedule == "plateau":
        waited = progress.epoch - progress.best_epoch
        if waited and waited % max(settings.patience // 3, 1) == 0:
            progress.lr = max(progress.lr / 2, lr / 100)
        return progress.lr or lr
    return lr


@dataclass(frozen=True, slots=True, kw_only=True)
class Passes:
    """What an epoch is made of, where it is not passes over clips that have one label each.

    train: over the training clips → (mean loss and top1, how many were seen)
    validate: over the validation clips → (loss, top-1)
    """

    train: Callable[[Fit, Rows, int, Callbacks], tuple[dict[str, float], int]]
    validate: Callable[[Fit, Rows], tuple[float, float]]
