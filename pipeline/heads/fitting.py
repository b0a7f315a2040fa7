"""The training loop: epochs over clips, the best model by validation loss, stop when asked.

Our own loop over `train_on_batch`, because it must stop between batches, keep its best weights
whatever happens, and go on later exactly where it stood; `fit` offers these one by one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.heads.augmentation import drop_features, jitter_steps
from pipeline.heads.clips import Clips
from pipeline.heads.config import TrainConfig
from pipeline.heads.lean import keras
from pipeline.heads.measures import cross_entropy, predicted_classes
from pipeline.heads.source import Rows
from pipeline.heads.statistics import Statistics


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochReport:
    """What one epoch did. `epoch` counts from 1; rates count training clips per second."""

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


OnEpoch = Callable[[EpochReport], None]
Stop = threading.Event


@dataclass(slots=True, kw_only=True)
class Progress:
    """Where a training stands: enough to go on from. `best_weights` belong to `best_epoch`.

    stopped_by: the signal that stopped it (SIGINT, SIGTERM); empty where none did.
    """

    history: list[EpochReport] = field(default_factory=list)
    best_loss: float = float("inf")
    best_epoch: int = 0
    best_weights: list[npt.NDArray[Any]] = field(default_factory=list)
    stopped: bool = False
    stopped_by: str = ""
    lr: float = 0.0

    def stop(self, interrupt: KeyboardInterrupt | None = None) -> None:
        """Note that it was stopped, and by which signal."""
        self.stopped = True
        if interrupt is not None:
            self.stopped_by = "SIGTERM" if "SIGTERM" in interrupt.args else "SIGINT"

    @property
    def epoch(self) -> int:
        """Epochs finished."""
        return len(self.history)

    @property
    def clips_per_second(self) -> float:
        """The median over the epochs; the first, which compiles, counts only if it is alone."""
        rates = [report.clips_per_second for report in self.history[1:] or self.history]
        return float(np.median(rates)) if rates else 0.0


def compile_head(model: Any, lr: float, label_smoothing: float = 0.0) -> None:
    """Compile a head for training: Adam with a clipped gradient, cross-entropy, accuracy."""
    # XLA slows the recurrence on a CPU (3 against 12 clips/s for the wide LSTM); JAX is XLA.
    compiled = "auto" if keras.backend.backend() == "jax" else False
    model.compile(
        optimizer=keras.optimizers.Adam(lr, global_clipnorm=5.0),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=label_smoothing),
        metrics=[keras.metrics.CategoricalAccuracy(name="top1")],
        jit_compile=compiled,
    )


def fit_head(
    model: Any,
    clips: Clips,
    train: Rows,
    validation: Rows,
    config: TrainConfig,
    *,
    batch: int,
    lr: float,
    statistics: Statistics,
    progress: Progress | None = None,
    on_epoch: OnEpoch | None = None,
    after_epoch: Callable[[Any, Progress], None] | None = None,
    stop: Stop | None = None,
    fold: tuple[int, int] = (0, 1),
    last_epoch: int = 0,
) -> Progress:
    """Train a compiled head and leave its best weights in it.

    `train` and `validation` are positions in `clips`. With an empty `validation` all epochs, or
    those up to `last_epoch`, are run and the last weights are kept. `progress` goes on from an
    earlier one, whose state must be in the model. `after_epoch(model, progress)` may save; `stop`
    ends the training within a batch.

    On KeyboardInterrupt the best weights are put into the model before it is raised again, with
    `progress.stopped` set, so the caller can still save them.
    """
    progress = progress or Progress(lr=lr)
    weights = class_weights(clips.labels[train], len(clips.classes), config.class_weights)
    try:
        epochs = last_epoch or config.epochs
        while progress.epoch < epochs and not _patience_over(progress, config, validation):
            epoch, started = progress.epoch, time.perf_counter()
            rate = _rate(config, lr, progress)
            model.optimizer.learning_rate = rate
            logs, seen = _one_epoch(
                model, clips, train, config, batch, epoch, weights, statistics, stop
            )
            seconds = time.perf_counter() - started
            if stop is not None and stop.is_set():
                progress.stopped = True
                break
            loss, top1 = _validate(model, clips, validation, batch)
            _note(progress, model, loss if len(validation) else -float(epoch))
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
                fold=fold[0],
                folds=fold[1],
            )
            progress.history.append(report)
            # First: a hook may be where Ctrl-C arrives.
            if after_epoch is not None:
                after_epoch(model, progress)
            if on_epoch is not None:
                on_epoch(report)
    except KeyboardInterrupt as interrupt:
        progress.stop(interrupt)
        raise
    finally:
        if progress.best_weights:
            model.set_weights(progress.best_weights)
    return progress


def predict_probabilities(model: Any, clips: Clips, positions: Rows, batch: int = 64) -> Any:
    """(n, classes) float32 of the clips at `positions`, in their order, by the first store alone.

    That is what `predict` reads of a clip, with views or without. Every call has one shape (the last
    batch is filled up), so nothing is compiled twice.
    """
    parts = [np.zeros((0, len(clips.classes)), np.float32)]
    seen = [np.zeros(0, np.int64)]
    for features, mask, at in clips.batches(positions, batch):
        parts.append(predict_batch(model, features, mask, batch))
        seen.append(at)
    if not np.array_equal(np.concatenate(seen), positions):
        raise RuntimeError(f"{len(positions)} clips were asked for and others were predicted")
    return np.concatenate(parts)


def predict_views(model: Any, clips: Clips, positions: Rows, batch: int = 64) -> Any:
    """The same, as the mean over all views of each clip."""
    total = predict_probabilities(model, clips, positions, batch)
    for view, places in clips.views:
        total = total + predict_probabilities(model, view, places[positions], batch)
    return total / (1 + len(clips.views))


def predict_batch(
    model: Any, features: npt.NDArray[Any], mask: npt.NDArray[np.bool_], batch: int
) -> npt.NDArray[np.float32]:
    """(n, classes) float32 for n ≤ `batch` sequences, computed as one full batch."""
    n = len(features)
    if n < batch:
        # Repeats of a real clip: a row without a real step would abort cuDNN.
        fill = np.zeros(batch - n, dtype=np.int64)
        features = np.concatenate([features, features[fill]])
        mask = np.concatenate([mask, mask[fill]])
    outputs = model.predict_on_batch({"features": features, "mask": mask})
    return np.asarray(outputs, dtype=np.float32)[:n]


def class_weights(labels: Rows, classes: int, wanted: bool) -> npt.NDArray[np.float32] | None:
    """(classes,) weights n / (classes present · n of class), mean 1 over the clips; or None."""
    if not wanted:
        return None
    counts = np.bincount(labels, minlength=classes)
    present = np.count_nonzero(counts)
    return (len(labels) / (present * np.maximum(counts, 1))).astype(np.float32)


def _one_epoch(
    model: Any,
    clips: Clips,
    train: Rows,
    config: TrainConfig,
    batch: int,
    epoch: int,
    weights: npt.NDArray[np.float32] | None,
    statistics: Statistics,
    stop: Stop | None,
) -> tuple[dict[str, float], int]:
    sums, seen = {"loss": 0.0, "top1": 0.0}, 0
    one_hot = np.eye(len(clips.classes), dtype=np.float32)
    for features, mask, at in _training_batches(clips, train, config, batch, epoch, statistics):
        if stop is not None and stop.is_set():
            break
        labels = clips.labels[at]
        sample_weight = None if weights is None else weights[labels]
        logs = model.train_on_batch(
            {"features": features, "mask": mask}, one_hot[labels], sample_weight, return_dict=True
        )
        seen += len(at)
        for name in sums:
            sums[name] += float(logs[name]) * len(at)
    return {name: total / max(seen, 1) for name, total in sums.items()}, seen


def _training_batches(
    clips: Clips, train: Rows, config: TrainConfig, batch: int, epoch: int, statistics: Statistics
) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[np.bool_], Rows]]:
    rng = np.random.default_rng((config.seed, epoch, 1))
    for features, mask, at in clips.training_batches(train, batch, config.seed, epoch):
        if config.step_jitter:
            features = jitter_steps(features, mask, config.step_jitter, rng)
        if config.feature_dropout:
            features = drop_features(features, config.feature_dropout, statistics.mean, rng)
        yield features, mask, at


def _validate(model: Any, clips: Clips, positions: Rows, batch: int) -> tuple[float, float]:
    if not len(positions):
        return float("nan"), float("nan")
    probabilities = predict_probabilities(model, clips, positions, batch)
    labels = clips.labels[positions]
    return cross_entropy(probabilities, labels), float(
        (predicted_classes(probabilities) == labels).mean()
    )


def _note(progress: Progress, model: Any, loss: float) -> None:
    if loss < progress.best_loss:
        progress.best_loss = loss
        progress.best_epoch = progress.epoch + 1
        progress.best_weights = model.get_weights()


def _patience_over(progress: Progress, config: TrainConfig, validation: Rows) -> bool:
    return bool(len(validation)) and progress.epoch - progress.best_epoch >= config.patience


def _rate(config: TrainConfig, lr: float, progress: Progress) -> float:
    if config.schedule == "cosine":
        return float(lr * (0.01 + 0.99 * (1 + np.cos(np.pi * progress.epoch / config.epochs)) / 2))
    if config.schedule == "plateau":
        waited = progress.epoch - progress.best_epoch
        if waited and waited % max(config.patience // 3, 1) == 0:
            progress.lr = max(progress.lr / 2, lr / 100)
        return progress.lr or lr
    return lr
