"""Store in, trained head out: one run in a folder of its own."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import engine
from pipeline.errors import ConfigError
from pipeline.heads.checkpoint import Checkpoint
from pipeline.heads.clips import Clips, load_clips
from pipeline.heads.config import TrainConfig
from pipeline.heads.fitting import (
    OnEpoch,
    Progress,
    Stop,
    compile_head,
    fit_head,
    predict_batch,
    predict_probabilities,
)
from pipeline.heads.gate import require_apart
from pipeline.heads.identity import FILE, Identity
from pipeline.heads.measures import Probabilities, confusion
from pipeline.heads.plan import FOLDED, Plan, plan_training, run_config
from pipeline.heads.record import write_clips
from pipeline.heads.resolved import auto_batch, head_policy, is_wide
from pipeline.heads.run_folder import CHECKPOINT, DONE, write_history, write_json
from pipeline.heads.source import Rows, SequenceSource
from pipeline.heads.splits import Split, rows_of_test_set
from pipeline.heads.statistics import Statistics, masked_statistics
from pipeline.heads.work_folder import claim_folder
from pipeline.heads.zoo import build_head, head_kind, require_readable


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fitted:
    """A trained head with its training's course, and its say on validation and test clips."""

    model: Any
    progress: Progress
    statistics: Statistics
    parts: Mapping[str, tuple[Rows, Probabilities]]
    seconds: float
    inference_clips_per_second: float


def train(
    source: SequenceSource | Clips,
    config: TrainConfig,
    out: Path | str,
    *,
    overwrite: bool = False,
    resume: bool = False,
    on_epoch: OnEpoch | None = None,
    stop: Stop | None = None,
    first_stage: Mapping[str, Any] | None = None,
    since: Path | None = None,
) -> dict[str, Any]:
    """Train one head and leave the run in `out`; returns what `metrics.json` holds.

    `source` may be `Clips` that `load_clips` gave, so that many trainings share one load.
    `on_epoch` is called after every epoch with an `EpochReport`. `stop` set, or Ctrl-C, ends the
    training within a batch and keeps the best model so far; `resume` goes on with such a run.
    `first_stage` (weights path and hash, …) is kept in `config.json` for `predict`, and there too
    which clips came, went or changed `since` an earlier run (default: the one that is replaced).

    Raises `ConfigError` for a folder in use, too few clips, classes or groups, and `SpecMismatch`
    for a head that cannot read this source.
    """
    out = Path(out)
    kind = head_kind(config.head)
    kind.configure(config.options)
    require_readable(kind, source.shape)
    work = claim_folder(out, overwrite=overwrite, resume=resume)
    clips = source if isinstance(source, Clips) else load_clips(source)
    engine.prepare()
    plan = plan_training(clips, config, work.path if work.resumed else None)
    started = time.perf_counter()
    earlier = since or (out if work.replaces else None)
    before = _identity_of(earlier) if earlier is not None else None
    work.begin()
    if not plan.resumed:
        plan.identity.save(work.path / FILE)
        write_json(work.path / "config.json", run_config(out.name, plan, first_stage or {}, before))
    tested = rows_of_test_set(plan.clips.table, plan.clips.holdouts, config.test_set)
    write_clips(work.path, plan.clips, plan.splits, tested)
    try:
        metrics = _train(plan, work.path, started, on_epoch, stop)
    except ConfigError:
        # Anything else (a full disk, Ctrl-C) leaves a training to go on with.
        work.give_up()
        raise
    if not metrics["stopped"]:
        work.finish()
    return metrics


def _identity_of(folder: Path) -> Identity | None:
    try:
        return Identity.load(folder)
    except ConfigError:
        return None


def _train(
    plan: Plan, folder: Path, started: float, on_epoch: OnEpoch | None, stop: Stop | None
) -> dict[str, Any]:
    if plan.settings.split in FOLDED:
        from pipeline.heads.folds import train_folds

        return train_folds(plan, folder, on_epoch, stop)
    split = plan.splits[0]
    split.save(folder / "split.json")
    checkpoint = Checkpoint(folder / CHECKPOINT, plan.identity.hash)
    fitted = fit_split(
        plan.clips, split, plan.settings, checkpoint=checkpoint, on_epoch=on_epoch, stop=stop
    )
    if fitted.progress.stopped:
        checkpoint.save()
    try:
        metrics = finish_run(folder, plan.clips, split, plan.settings, fitted, started)
    except KeyboardInterrupt:
        # All epochs are done: the state of the last is worth more than what its budget saved.
        checkpoint.save()
        raise
    if metrics["stopped"]:
        # Also where it was stopped after its last epoch, in the baseline beside it.
        checkpoint.save()
    return metrics


def fit_split(
    clips: Clips,
    split: Split,
    config: TrainConfig,
    *,
    checkpoint: Checkpoint | None = None,
    on_epoch: OnEpoch | None = None,
    stop: Stop | None = None,
    last_epoch: int = 0,
) -> Fitted:
    """Train one head on one split; the test clips are looked at once, at the end.

    Goes on from `checkpoint` where it holds a state. After Ctrl-C the head is the best so far, and
    `checkpoint` has the state of the last whole epoch, for the caller to save. Raises `LeakError`
    for a split whose test or validation clips are also trained on.
    """
    require_apart(clips, split)
    started = time.perf_counter()
    train_at, validation_at = clips.positions(split.train), clips.positions(split.validation)
    statistics = masked_statistics(clips, train_at)
    model, batch, lr = compiled_head(clips, config, statistics, len(train_at))
    progress = Progress(lr=lr)
    if checkpoint is not None and checkpoint.exists:
        progress = checkpoint.load(model)
    try:
        fit_head(
            model,
            clips,
            train_at,
            validation_at,
            config,
            batch=batch,
            lr=lr,
            statistics=statistics,
            progress=progress,
            on_epoch=on_epoch,
            after_epoch=checkpoint.after_epoch if checkpoint is not None else None,
            stop=stop,
            fold=(split.fold, split.folds),
            last_epoch=last_epoch,
        )
    except KeyboardInterrupt as interrupt:
        # The best model is worth more than the signal: the caller finishes, then looks at stopped.
        progress.stop(interrupt)
    if not progress.best_weights:
        if progress.stopped:
            raise KeyboardInterrupt(
                "stopped before the first epoch ended: there is nothing to keep",
                progress.stopped_by,
            )
        raise ConfigError(
            f"the training of {config.head} diverged, its loss is not a number: lower lr ({lr})"
        )
    parts = {
        name: (at, predict_probabilities(model, clips, at, batch))
        for name, at in (("test", clips.positions(split.test)), ("validation", validation_at))
    }
    return Fitted(
        model=model,
        progress=progress,
        statistics=statistics,
        parts=parts,
        seconds=time.perf_counter() - started,
        inference_clips_per_second=_inference_rate(model, clips, train_at, batch),
    )


def _inference_rate(model: Any, clips: Clips, positions: Rows, batch: int) -> float:
    """Clips per second of a compiled prediction: the better of two batches."""
    features, mask, at = next(clips.batches(positions, batch))
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        predict_batch(model, features, mask, batch)
        seconds.append(time.perf_counter() - started)
    return len(at) / min(seconds)


def compiled_head(
    clips: Clips, config: TrainConfig, statistics: Statistics, training_clips: int
) -> tuple[Any, int, float]:
    """(compiled model, training batch in clips, learning rate) for these clips and settings."""
    kind = head_kind(config.head)
    head = kind.configure(config.options)
    wide = is_wide(head)
    lr = config.lr or kind.lr
    model = build_head(
        config.head,
        clips.steps,
        clips.shape,
        len(clips.classes),
        head,
        statistics,
        precision=head_policy(config.precision, wide),
        seed=config.seed,
    )
    compile_head(model, lr, config.label_smoothing)
    return model, config.train_batch or auto_batch(training_clips, wide), lr


def finish_run(
    out: Path, clips: Clips, split: Split, config: TrainConfig, fitted: Fitted, started: float
) -> dict[str, Any]:
    """Write model and figures of a trained head, `metrics.json` last; then its pictures."""
    from pipeline.heads.evaluation import evaluate_run
    from pipeline.heads.pictures import Drawn, draw_pictures

    save_model(fitted.model, out / "model.keras")
    write_history(out / "history.csv", fitted.progress.history)
    metrics = evaluate_run(out, clips, split, config, fitted)
    metrics["seconds"] = time.perf_counter() - started
    write_json(out / DONE, metrics)
    test_at, probabilities = fitted.parts["test"]
    drawn = Drawn(
        model=fitted.model,
        history=fitted.progress.history,
        best_epoch=fitted.progress.best_epoch,
        counts=confusion(probabilities, clips.labels[test_at]),
        classes=clips.classes,
    )
    draw_pictures(out, drawn)
    return metrics


def save_model(model: Any, path: Path) -> None:
    """Save a head without its optimizer (three times the size), whole or not at all."""
    temporary = path.with_name(f".{path.name}")
    # Keras goes by the suffix.
    temporary = temporary.with_suffix(".keras")
    model.save(temporary, include_optimizer=False)
    temporary.replace(path)
