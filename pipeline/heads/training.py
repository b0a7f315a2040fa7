"""Store in, trained head out: one run in a folder of its own."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

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
from pipeline.heads.measures import Probabilities
from pipeline.heads.run_folder import (
    CHECKPOINT,
    DONE,
    FORMAT,
    FORMAT_VERSION,
    prepare_folder,
    recorded_splits,
    split_record,
    write_history,
    write_json,
)
from pipeline.heads.source import Rows, SequenceSource
from pipeline.heads.splits import Split, make_folds, make_split, resolve_way
from pipeline.heads.statistics import Statistics, masked_statistics
from pipeline.heads.zoo import build_head, config_dict, head_kind, require_readable

WIDE = 512
"""From this recurrent width on, bfloat16 products and larger batches pay on a CPU."""


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
) -> dict[str, Any]:
    """Train one head and leave the run in `out`; returns what `metrics.json` holds.

    `source` may be `Clips` that `load_clips` gave, so that many trainings share one load.
    `on_epoch` is called after every epoch with an `EpochReport`. `stop` set, or Ctrl-C, ends the
    training within a batch and keeps the best model so far; `resume` goes on with such a run.
    `first_stage` (weights path and hash, …) is kept in `config.json` for `predict`.

    Raises `ConfigError` for a folder in use, too few clips, classes or groups, and `SpecMismatch`
    for a head that cannot read this source.
    """
    out = Path(out)
    kind = head_kind(config.head)
    head = kind.configure(config.options)
    require_readable(kind, source.shape)
    clips = source if isinstance(source, Clips) else load_clips(source)
    how = resolve_way(clips.table, config.split)
    prepare_folder(out, overwrite=overwrite, resume=resume)
    # A store may have grown since: a resumed training keeps to the clips it began with.
    splits = recorded_splits(out) or _splits(clips, config, how)
    engine.prepare()
    started = time.perf_counter()
    write_json(
        out / "config.json", run_config(out, clips, config, head, splits, first_stage or {}, source)
    )
    if how in ("kfold", "leave_one_group_out"):
        from pipeline.heads.folds import train_folds

        return train_folds(clips, config, out, splits, on_epoch, stop)
    splits[0].save(out / "split.json")
    checkpoint = Checkpoint(out / CHECKPOINT)
    fitted = fit_split(
        clips, splits[0], config, checkpoint=checkpoint, on_epoch=on_epoch, stop=stop
    )
    if fitted.progress.stopped:
        checkpoint.save(fitted.model, fitted.progress)
    metrics = finish_run(out, clips, splits[0], config, fitted, started)
    if not fitted.progress.stopped:
        checkpoint.remove()
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

    Goes on from `checkpoint` where it holds a state. After Ctrl-C the state is saved there and the
    best model so far is what the checkpoint holds.
    """
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
    except KeyboardInterrupt:
        # The best model is worth more than the signal: the caller finishes, then looks at stopped.
        progress.stopped = True
    if not progress.best_weights:
        if progress.stopped:
            raise KeyboardInterrupt(
                "stopped before the first epoch ended: there is nothing to keep"
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
    wide = getattr(head, "units", 0) >= WIDE
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


def head_policy(precision: str, wide: bool) -> str:
    """The Keras dtype policy of a head: `auto` is bfloat16 for wide ones where it is in hardware.

    float16 would need loss scaling and gains nothing over bfloat16 or float32 for a head.
    """
    if precision == "auto":
        fast = engine.auto_precision() == "bfloat16"
        precision = "bfloat16" if wide and fast else "float32"
    return "float32" if precision == "float32" else f"mixed_{precision}"


def auto_batch(training_clips: int, wide: bool) -> int:
    """Clips per training step: as many as the machine likes, but at least eight steps an epoch."""
    most = 128 if wide else 64
    few = max(training_clips // 8, 1)
    return int(min(most, max(8, 2 ** int(np.log2(few)))))


def finish_run(
    out: Path, clips: Clips, split: Split, config: TrainConfig, fitted: Fitted, started: float
) -> dict[str, Any]:
    """Write model, figures and pictures of a trained head; `metrics.json` comes last."""
    from pipeline.heads.evaluation import evaluate_run

    save_model(fitted.model, out / "model.keras")
    write_history(out / "history.csv", fitted.progress.history)
    metrics = evaluate_run(out, clips, split, config, fitted)
    metrics["seconds"] = time.perf_counter() - started
    write_json(out / DONE, metrics)
    return metrics


def save_model(model: Any, path: Path) -> None:
    """Save a head without its optimizer (three times the size), whole or not at all."""
    temporary = path.with_name(f".{path.name}")
    # Keras goes by the suffix.
    temporary = temporary.with_suffix(".keras")
    model.save(temporary, include_optimizer=False)
    temporary.replace(path)


def run_config(
    out: Path,
    clips: Clips,
    config: TrainConfig,
    head: Any,
    splits: list[Split],
    first_stage: Mapping[str, Any],
    source: Any,
) -> dict[str, Any]:
    """Everything that decided a run, as plain JSON values: what `config.json` holds."""
    packages = ("keras", "numpy", "pixels-once")
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "name": out.name,
        "head": {"name": config.head, "config": config_dict(head)},
        "train": config.to_dict(),
        "store": {"url": str(getattr(clips.source, "url", "")), "fingerprint": clips.fingerprint},
        "fingerprint": clips.fingerprint,
        "spec": dict(clips.spec),
        "classes": list(clips.classes),
        "steps": clips.steps,
        "shape": list(clips.shape),
        "first_stage": dict(first_stage),
        "left_out": dict(clips.left_out),
        "backend": engine.backend_name(),
        "software": {name: _version(name) for name in packages} | engine.software(),
        "split": split_record(clips, splits[0]),
        "folds": [split_record(clips, split) for split in splits] if len(splits) > 1 else [],
    }


def _splits(clips: Clips, config: TrainConfig, how: str) -> list[Split]:
    if how in ("kfold", "leave_one_group_out"):
        return make_folds(
            clips.table, how=how, seed=config.seed, fractions=config.fractions, folds=config.folds
        )
    return [make_split(clips.table, how=how, seed=config.seed, fractions=config.fractions)]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
