"""One head of steps trained on one split of whole videos, and its predictions of the others."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.heads.augmentation import drop_features
from pipeline.heads.batches import fills_up
from pipeline.heads.checkpoint import Checkpoint
from pipeline.heads.config import TrainConfig
from pipeline.heads.epochs import Callbacks, Fit, Passes, Progress, fit_head
from pipeline.heads.fitting import require_weights
from pipeline.heads.leakage import require_apart
from pipeline.heads.measures import cross_entropy, predicted_classes
from pipeline.heads.source import Float32, Rows
from pipeline.heads.splits import Split
from pipeline.heads.statistics import channels_of, merged_statistics
from pipeline.heads.steps.compiling import compiled_steps, step_head
from pipeline.heads.steps.feeding import step_weights, training_batches
from pipeline.heads.steps.inference import predict_videos
from pipeline.heads.steps.videos import StepClips


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FittedSteps:
    """A trained head of steps.

    head: with the best weights; `fit.model` is its trained form, of the same layers
    parts: `test` and `validation` → (positions of the videos, their probabilities, (steps, classes) each)
    """

    head: Any
    fit: Fit
    progress: Progress
    parts: Mapping[str, tuple[Rows, list[Float32]]]
    seconds: float
    steps_per_second: float


def fit_videos(
    clips: StepClips,
    split: Split,
    settings: TrainConfig,
    *,
    checkpoint: Checkpoint | None = None,
    callbacks: Callbacks | None = None,
    last_epoch: int = 0,
) -> FittedSteps:
    """Train one head on one split by resolved settings, as `fitting.fit_single` does one of clips."""
    require_apart(clips, split)
    started = time.perf_counter()
    train = clips.positions(split.train)
    statistics = merged_statistics(
        (np.asarray(clips.features_of(int(i))) for i in train), channels_of(clips.shape)
    )
    head = step_head(clips, settings, statistics)
    fit = Fit(
        model=compiled_steps(head, settings),
        clips=clips,
        split=split,
        settings=settings,
        statistics=statistics,
        last_epoch=last_epoch,
    )
    progress = Progress(lr=settings.lr)
    if checkpoint is not None and checkpoint.exists:
        progress = checkpoint.load(fit.model)
    passes = Passes(
        train=lambda fit, at, epoch, stop: _train_epoch(clips, fit, at, epoch, stop),
        validate=lambda fit, at: _validate(clips, head, at, settings.train_batch),
    )
    after_epoch = None if checkpoint is None else checkpoint.after_epoch
    try:
        fit_head(fit, progress, callbacks or Callbacks(), after_epoch, passes)
    except KeyboardInterrupt as interrupt:
        # The best model is worth more than the signal: the caller finishes, then looks at stopped.
        progress.stop(interrupt)
    require_weights(progress, settings)
    parts, rate = {}, 0.0
    for name, rows in (("validation", split.validation), ("test", split.test)):
        at, began = clips.positions(rows), time.perf_counter()
        parts[name] = at, predict_videos(head, clips, at, settings.train_batch)
        seen = sum(len(clips.videos[i]) for i in at)
        rate = max(rate, seen / max(time.perf_counter() - began, 1e-9))
    return FittedSteps(
        head=head,
        fit=fit,
        progress=progress,
        parts=parts,
        seconds=time.perf_counter() - started,
        steps_per_second=rate,
    )


def loss_and_accuracy(
    clips: StepClips, positions: Rows, probabilities: list[Float32]
) -> tuple[float, float]:
    """(mean cross-entropy in nats, share of right steps) over all steps of these videos.

    Of several labels at a time both are means over the labels, too. NaN without videos.
    """
    if not len(positions):
        return float("nan"), float("nan")
    p = np.concatenate(probabilities)
    targets = np.concatenate([clips.videos[i].targets for i in positions])
    if clips.multi_label:
        held = np.clip(p.astype(np.float64), 1e-7, 1 - 1e-7)
        entropy = -np.where(targets, np.log(held), np.log(1 - held))
        return float(entropy.mean()), float(((p >= 0.5) == targets).mean())
    labels = targets.argmax(axis=1)
    return cross_entropy(p, labels), float((predicted_classes(p) == labels).mean())


def _train_epoch(
    clips: StepClips, fit: Fit, train: Rows, epoch: int, callbacks: Callbacks
) -> tuple[dict[str, float], int]:
    """(mean loss and top1, steps seen) of one epoch over the training videos."""
    settings = fit.settings
    rng = np.random.default_rng((settings.seed, epoch, 1))
    sums, seen = {"loss": 0.0, "top1": 0.0}, 0
    batches = training_batches(
        clips,
        train,
        settings.train_batch,
        (settings.seed, epoch),
        fill=fills_up(settings),
        weights=step_weights(clips, train, balanced=settings.class_weights),
        label_smoothing=settings.label_smoothing,
    )
    for features, mask, targets, steps in batches:
        if callbacks.stopping:
            break
        if settings.feature_dropout:
            features = drop_features(features, settings.feature_dropout, fit.statistics.mean, rng)
        inputs = {"features": features, "mask": mask}
        logs = fit.model.train_on_batch(inputs, targets, return_dict=True)
        seen += steps
        for name in sums:
            sums[name] += float(logs[name]) * steps
    return {name: total / max(seen, 1) for name, total in sums.items()}, seen


def _validate(clips: StepClips, head: Any, positions: Rows, batch: int) -> tuple[float, float]:
    return loss_and_accuracy(clips, positions, predict_videos(head, clips, positions, batch))
