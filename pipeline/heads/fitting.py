"""One head trained on one split, and its predictions on the clips that it has not seen."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline import engine
from pipeline.errors import ConfigError
from pipeline.heads.checkpoint import Checkpoint
from pipeline.heads.clips import Clips
from pipeline.heads.config import TrainConfig
from pipeline.heads.epochs import Callbacks, Fit, Progress, fit_head
from pipeline.heads.inference import predict_batch, predict_probabilities
from pipeline.heads.leakage import require_apart
from pipeline.heads.lean import keras
from pipeline.heads.measures import Probabilities
from pipeline.heads.source import Rows
from pipeline.heads.splits import Split
from pipeline.heads.statistics import Statistics, masked_statistics
from pipeline.heads.zoo import build_head


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fitted:
    """A trained head with its training history and its predictions.

    fit: what it was trained with; its model has the best weights
    parts: `test` and `validation` → (positions (n,), probabilities (n, classes))
    """

    fit: Fit
    progress: Progress
    parts: Mapping[str, tuple[Rows, Probabilities]]
    seconds: float
    inference_clips_per_second: float


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

    Resumes from `checkpoint` if it holds a state. After Ctrl-C the head is the best so far, and
    `checkpoint` has the state of the last whole epoch, for the caller to save. Raises `LeakError`
    if a test or validation clip is also trained on, `ConfigError` if the training diverges, and
    `KeyboardInterrupt` if it is stopped before the end of its first epoch.
    """
    require_apart(clips, split)
    started = time.perf_counter()
    statistics = masked_statistics(clips, clips.positions(split.train))
    fit = Fit(
        model=compiled_head(clips, settings, statistics),
        clips=clips,
        split=split,
        settings=settings,
        statistics=statistics,
        last_epoch=last_epoch,
    )
    progress = Progress(lr=settings.lr)
    after_epoch = None
    if checkpoint is not None:
        after_epoch = checkpoint.after_epoch
        progress = checkpoint.load(fit.model) if checkpoint.exists else progress
    try:
        fit_head(fit, progress, callbacks or Callbacks(), after_epoch)
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
        parts[name] = at, predict_probabilities(fit.model, clips, at, settings.train_batch)
    return Fitted(
        fit=fit,
        progress=progress,
        parts=parts,
        seconds=time.perf_counter() - started,
        inference_clips_per_second=_inference_rate(fit),
    )


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
    )
    compile_head(model, settings.lr, settings.label_smoothing)
    return model


def compile_head(model: Any, lr: float, label_smoothing: float = 0.0) -> None:
    """Compile a head for training: Adam with a clipped gradient, cross-entropy, accuracy."""
    # XLA slows the recurrence on a CPU (3 against 12 clips/s for the wide LSTM); JAX is XLA.
    jit_compile = "auto" if keras.backend.backend() == "jax" else False
    model.compile(
        optimizer=keras.optimizers.Adam(lr, global_clipnorm=5.0),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=label_smoothing),
        metrics=[keras.metrics.CategoricalAccuracy(name="top1")],
        jit_compile=jit_compile,
    )


def _inference_rate(fit: Fit) -> float:
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
