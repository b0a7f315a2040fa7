"""Store in, trained head out: one run in a folder of its own.

From top to bottom: `train` claims the folder, plans the training and records the plan; then one
split is fitted (`fitting`, its epochs in `epochs`), or every fold (`folds`); the figures are written
(`evaluation`), `metrics.json` last of them; then the plots.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline import engine
from pipeline.errors import ConfigError
from pipeline.heads import run_folder
from pipeline.heads.checkpoint import Checkpoint
from pipeline.heads.choosing import chosen_head
from pipeline.heads.clips import Clips, load_clips
from pipeline.heads.config import AUTO, TrainConfig
from pipeline.heads.epochs import Callbacks, OnEpoch, Stop
from pipeline.heads.evaluation import evaluate_run
from pipeline.heads.folds import train_folds
from pipeline.heads.identity import FILE, Identity
from pipeline.heads.late import fit_split
from pipeline.heads.plan import Plan, plan_training, run_config
from pipeline.heads.plots import draw_plots
from pipeline.heads.shuffling import with_steps_shuffled
from pipeline.heads.source import SequenceSource
from pipeline.heads.splits import FOLDED, rows_of_test_set
from pipeline.heads.steps.folds import train_video_folds
from pipeline.heads.steps.planning import require_fit
from pipeline.heads.steps.run import train_videos
from pipeline.heads.steps.videos import StepClips
from pipeline.heads.work_folder import claim_folder
from pipeline.heads.zoo import head_kind, require_readable
from pipeline.plain import write_json


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
    """Train one head and write the run to `out`; returns what `metrics.json` holds.

    source: or the `Clips` that `load_clips` or, for a head of steps, `load_videos` returned
    on_epoch: called after every epoch with an `EpochReport`
    stop: set, or Ctrl-C, ends the training within a batch and keeps the best model so far
    resume: resume such a run
    first_stage: what `predict` needs (weights path and hash, …), kept in `config.json`
    since: an earlier run; `config.json` lists the clips that were added, removed or changed since
        (default: the run that is replaced)

    Raises `ConfigError` for a folder in use, too few clips, classes or groups, and `SpecMismatch`
    for a head that cannot read this source.
    """
    out = Path(out)
    require_fit(source, config)
    if config.head != AUTO:
        kind = head_kind(config.head)
        kind.configure(config.options)
        require_readable(kind, source.shape)
    work = claim_folder(out, overwrite=overwrite, resume=resume)
    clips = source if isinstance(source, Clips) else load_clips(source, skeleton=config.skeleton)
    if config.shuffle_steps:
        clips = with_steps_shuffled(clips, config.seed)
    engine.prepare()
    chosen = chosen_head(clips, config, work.path if work.resumed else None, stop)
    asked, config = config, chosen.config
    plan = plan_training(clips, config, work.path if work.resumed else None)
    started = time.perf_counter()
    earlier = since or (out if work.replaces else None)
    before = _identity_of(earlier) if earlier is not None else None
    work.begin()
    if not plan.resumed:
        plan.identity.save(work.path / FILE)
        record = run_config(out.name, plan, first_stage or {}, before)
        if chosen.record:
            record |= {"chosen": chosen.record, "asked": asked.to_dict()}
        write_json(work.path / "config.json", record)
    tested = rows_of_test_set(plan.clips.table, plan.clips.holdouts, config.test_set)
    run_folder.write_clips(work.path, plan.clips, plan.splits, tested)
    try:
        metrics = _way(plan)(plan, work.path, Callbacks(on_epoch=on_epoch, stop=stop), started)
    except ConfigError:
        # Anything else (a full disk, Ctrl-C) leaves a run that can be resumed.
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


def _way(plan: Plan) -> Callable[[Plan, Path, Callbacks, float], dict[str, Any]]:
    """What carries this plan out."""
    folded = plan.settings.split in FOLDED
    if isinstance(plan.clips, StepClips):
        return train_video_folds if folded else train_videos
    return train_folds if folded else _train_split


def _train_split(plan: Plan, folder: Path, callbacks: Callbacks, started: float) -> dict[str, Any]:
    checkpoint = Checkpoint(folder / run_folder.CHECKPOINT, plan.identity.hash)
    fitted = fit_split(
        plan.clips, plan.splits[0], plan.settings, checkpoint=checkpoint, callbacks=callbacks
    )
    if fitted.progress.stopped:
        checkpoint.save()
    try:
        run_folder.save_model(fitted.fit.model, folder / "model.keras")
        run_folder.write_history(folder / "history.csv", fitted.progress.history)
        metrics = evaluate_run(folder, fitted)
        metrics["seconds"] = time.perf_counter() - started
        if chosen := run_folder.read_config(folder).get("chosen"):
            metrics["chosen"] = chosen
        write_json(folder / run_folder.DONE, metrics)
        draw_plots(folder, fitted.fit.model)
    except KeyboardInterrupt:
        # All epochs are done: the state of the last is worth more than what its budget saved.
        checkpoint.save()
        raise
    if metrics["stopped"]:
        # Also if it was stopped after its last epoch, in the baseline beside it.
        checkpoint.save()
    return metrics
