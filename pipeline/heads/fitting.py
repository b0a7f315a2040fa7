"""One head trained on one split, and its predictions on the clips that it has not seen."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.errors import ConfigError
from pipeline.heads.checkpoint import Checkpoint
from pipeline.heads.clips import Clips
from pipeline.heads.compiling import compiled_head, way_to_fit
from pipeline.heads.config import TrainConfig
from pipeline.heads.ensemble import fit_members
from pipeline.heads.epochs import Callbacks, Fit, Progress, fit_head
from pipeline.heads.inference import predict_batch, predict_probabilities
from pipeline.heads.leakage import require_apart
from pipeline.heads.measures import Probabilities
from pipeline.heads.solving import solve_head
from pipeline.heads.source import Rows
from pipeline.heads.splits import Split
from pipeline.heads.statistics import masked_statistics
from pipeline.heads.within import folds_within

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


def fit_single(
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
    progress = Progress(lr=settings.lr)
    callbacks = callbacks or Callbacks()
    if checkpoint is not None and checkpoint.exists:
        progress = checkpoint.load(fit.model)
    try:
        fit = _trained(fit, progress, callbacks, checkpoint)
    except KeyboardInterrupt as interrupt:
        # The best model is worth more than the signal: the caller finishes, then looks at stopped.
        progress.stop(interrupt)
    require_weights(progress, settings)
    validation, test = clips.positions(split.validation), clips.positions(split.test)
    judged = progress.validation
    if judged is None:
        judged = predict_probabilities(fit.model, clips, validation, settings.train_batch)
    if refits(settings, split) and not progress.stopped:
        fit = _refit(fit, progress, callbacks, checkpoint)
    predicted = predict_probabilities(fit.model, clips, test, settings.train_batch)
    parts = {"test": (test, predicted), "validation": (validation, judged)}
    return Fitted(
        fit=fit,
        progress=progress,
        parts=parts,
        seconds=time.perf_counter() - started,
        inference_clips_per_second=inference_rate(fit),
    )


def require_weights(progress: Progress, settings: TrainConfig) -> None:
    """Raise `KeyboardInterrupt` or `ConfigError` if a training has ended without weights to keep."""
    if not progress.best_weights and progress.stopped:
        raise KeyboardInterrupt(
            "stopped before the first epoch ended: there is nothing to keep", progress.stopped_by
        )
    if not progress.best_weights:
        raise ConfigError(
            f"the training of {settings.head} diverged, its loss is not a number: lower lr "
            f"({settings.lr})"
        )


def _trained(
    fit: Fit, progress: Progress, callbacks: Callbacks, checkpoint: Checkpoint | None
) -> Fit:
    """Fit the head in the way of its settings; returns the fit with the model that is kept."""
    settings = fit.settings
    if way_to_fit(settings) == "solved":
        solve_head(fit, progress, callbacks)
        return fit
    if settings.stopping == "inner" and not fit.last_epoch:
        progress.choice = progress.choice or _inner_epochs(fit, callbacks)
        fit = replace(fit, last_epoch=int(progress.choice["epochs"]))
    return _by_gradients(fit, progress, callbacks, checkpoint)


def refits(settings: TrainConfig, split: Split) -> bool:
    """Whether a head trained by gradients is trained once more, with the validation clips."""
    return settings.refit and bool(len(split.validation)) and way_to_fit(settings) != "solved"


def _refit(
    fit: Fit, progress: Progress, callbacks: Callbacks, checkpoint: Checkpoint | None
) -> Fit:
    """The fit of fresh weights to training and validation clips together, for the best epoch's number.

    Nothing is left to be chosen by validation then, and a head of few clips is the better for each.
    Stopped, or diverged, it leaves the head that was validated, and `progress` says that it was stopped.
    """
    split = fit.split
    both = np.sort(np.concatenate([split.train, split.validation]))
    wider = replace(split, train=both, validation=both[:0])
    again = replace(
        _prepared(fit.clips, wider, fit.settings, progress.best_epoch), split=wider, refit=True
    )
    kept = None if checkpoint is None else checkpoint.refit()
    state = Progress(lr=fit.settings.lr)
    if kept is not None and kept.exists:
        state = kept.load(again.model)
    try:
        again = _by_gradients(again, state, callbacks, kept)
    except KeyboardInterrupt as interrupt:
        state.stop(interrupt)
    if state.stopped:
        progress.stopped, progress.stopped_by = True, state.stopped_by
        return fit
    if not state.best_weights:
        return fit
    return replace(again, split=split)


def _by_gradients(
    fit: Fit, progress: Progress, callbacks: Callbacks, checkpoint: Checkpoint | None
) -> Fit:
    if fit.settings.ensemble > 1:
        return fit_members(fit, progress, callbacks, checkpoint)
    fit_head(fit, progress, callbacks, None if checkpoint is None else checkpoint.after_epoch)
    return fit


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
    clips, settings = fit.clips, fit.settings
    folds = folds_within(clips.table, fit.split, INNER_FOLDS, settings.seed)
    if not folds:
        return {"epochs": settings.epochs, "folds": 0, "tried": []}
    losses = []
    for fold in folds:
        inner = replace(fold, validation=fold.test, test=fold.validation)
        progress = Progress(lr=settings.lr)
        fit_head(
            _prepared(clips, inner, replace(settings, stopping="fixed", ensemble=1)),
            progress,
            Callbacks(stop=callbacks.stop),
        )
        if progress.stopped:
            raise KeyboardInterrupt("stopped in the inner folds")
        losses.append([report.val_loss for report in progress.history])
    mean = np.average(losses, axis=0, weights=[len(fold.test) for fold in folds])
    return {
        "epochs": int(np.nanargmin(mean)) + 1 if np.isfinite(mean).any() else settings.epochs,
        "folds": len(folds),
        "tried": [{"epochs": number, "loss": loss} for number, loss in enumerate(mean.tolist(), 1)],
    }


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
