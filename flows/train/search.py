"""The best head and settings for a store by Optuna: a Prefect task per trial, scored by inner folds.

Every trial is fitted on all inner folds but one of the training clips and predicts that one, fold by
fold, and is given up if it is behind the median after a fold. Validation and test clips are
not read before the end: then the best point is trained as a run like any other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

import store
from flows.notices import notice
from flows.server.settling import run_page
from flows.settings.resolve import check_settings
from flows.settings.training import SearchSettings, SweepSettings
from flows.train import shared, study
from flows.train.opening import store_name
from flows.train.sweep import (
    Outcome,
    Trial,
    kept_stores,
    sweep_heads,
    train_trial,
    training_cluster,
)
from pipeline import engine
from pipeline.errors import ConfigError, PixelsError
from pipeline.heads.clips import Clips
from pipeline.heads.config import TrainConfig
from pipeline.heads.identity import Identity
from pipeline.heads.inner import inner_splits, scores
from pipeline.heads.plan import resolve
from pipeline.heads.shuffling import with_steps_shuffled
from pipeline.heads.space import FIXED, OPTIONS, TRAINING, Point, draw
from pipeline.heads.splits import resolve_way
from pipeline.plain import json_digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """The trials, the best of them, and the run that was trained from it."""

    folder: Path
    trials: list[dict[str, Any]]
    best: dict[str, Any]
    winner: Outcome


@flow(name="search", flow_run_name="search ← {settings.store}", persist_result=False)
def search(settings: SearchSettings) -> Searched:
    """Score `trials` points and train the best; goes on with a search that was interrupted."""
    from prefect_dask import DaskTaskRunner

    check_settings(settings)
    study.require_optuna()
    engine.require_backend()
    name = search_name(settings)
    folder = Path(settings.runs) / f"{name}.search"
    with run_page() as page, shared.store_warnings():
        shape = store.open_all(settings.store.split(",")[0].strip()).shape
        heads = [
            (head, shared.common_options(settings, head) | own)
            for head, own in sweep_heads(settings.heads, shape)
        ]
        asked = shared.make_config(settings, head=heads[0][0], options={})
        with (
            training_cluster(settings.workers, settings.trials) as cluster,
            DaskTaskRunner(cluster=cluster) as runner,
        ):
            made_of = runner.submit(search_identity, {"settings": settings}).result()
            record = _record(settings, heads, made_of)
            study.claim(folder, record, overwrite=settings.overwrite)
            at_once = len(cluster.workers)
            while trials := list(
                study.next_trials(folder, settings.seed, settings.trials, at_once)
            ):
                points = [(trial.number, draw(trial, heads, asked)) for trial in trials]
                _score_all(runner, folder, points, settings)
            lines = study.lines(folder)
            study.write_trials(folder, lines)
            best = study.best_of(lines)
            outcome = _train_best(runner, folder, name, settings)
        page.add("the trials", _publish, settings, lines, outcome)
    return Searched(folder=folder, trials=lines, best=best, winner=outcome)


def _train_best(runner: Any, folder: Path, name: str, settings: SearchSettings) -> Outcome:
    """Train the best trial; it replaces the run of a trial that was the best of fewer."""
    lines = study.lines(folder)
    best = study.best_of(lines)
    before = study.trained_before(folder, best["trial"])
    replaces = before is not None and lines[before]["point"] != best["point"]
    values = _sweep_settings(settings, overwrite=settings.overwrite or replaces)
    notice(f"training {Path(settings.runs) / name}, the best of {len(lines)} trials")
    trial = Trial(name=name, **best["point"])
    outcome: Outcome = runner.submit(train_trial, {"trial": trial, "settings": values}).result()
    return outcome


@task(
    name="search-identity",
    retries=0,
    cache_policy=NO_CACHE,
    persist_result=False,
    log_prints=False,
)
def search_identity(settings: SearchSettings) -> str:
    """A hash of the clips, their features and labels, the inner folds and the settings."""
    clips = trial_clips(settings)
    asked = shared.make_config(settings, head="mlp", options={})
    folds = inner_splits(clips, asked, "a search's best head")
    how = resolve_way(clips.table, asked.split)
    settled = resolve(replace(asked, stopping="fixed"), folds, how=how)
    return Identity.of(clips, folds, settled).hash


@task(
    name="search-trial",
    task_run_name="trial {number}: {point.head}",
    retries=0,
    cache_policy=NO_CACHE,
    persist_result=False,
    log_prints=False,
)
def score_trial(
    number: int, point: Point, settings: SearchSettings, folder: Path
) -> dict[str, Any]:
    """`top1`, `loss` and `state` of one point on the inner folds of the store that this process keeps."""
    from prefect import get_run_logger

    with shared.store_warnings():
        clips = trial_clips(settings)
    config = trial_config(settings, point, ensemble=1)
    folds = inner_splits(clips, config, "a search's best head")
    figures: dict[str, Any] = {"state": "complete"}
    for step, (top1, loss) in enumerate(scores(clips, config, folds)):
        figures |= {"top1": top1, "loss": loss}
        pruned = study.report(folder, number, step, study.score(top1, loss))
        if pruned and step + 1 < len(folds):
            figures["state"] = "pruned"
            break
    get_run_logger().info("trial %d: %s top-1 %.3f", number, figures["state"], figures["top1"])
    return figures


def trial_clips(settings: SearchSettings) -> Clips:
    """The clips of the store that this process keeps, as the best point is trained on them."""
    clips = kept_stores(settings.store, settings.skeleton).clips
    return with_steps_shuffled(clips, settings.seed) if settings.shuffle_steps else clips


def trial_config(settings: SearchSettings, point: Point, **changes: Any) -> TrainConfig:
    return shared.make_config(
        settings, head=point.head, options=point.options, **point.changes, **changes
    )


def search_name(settings: SearchSettings) -> str:
    """The name of the winner's run; the study is in `NAME.search` beside it."""
    if settings.seeds > 1:
        raise ConfigError(
            f"seeds is {settings.seeds}: a search has one; repeat its best head with train"
        )
    return shared.plain_name(settings.name) or f"search-{store_name(settings.store)}"


def _record(settings: SearchSettings, heads: Any, made_of: str) -> dict[str, Any]:
    space = {"options": dict(OPTIONS), "training": dict(TRAINING), "fixed": dict(FIXED)}
    return {
        "clips_and_settings": made_of,
        "heads": [
            f"{head}:{','.join(f'{k}={v}' for k, v in given.items())}" for head, given in heads
        ],
        "seed": settings.seed,
        "space": json_digest(space),
    }


def _score_all(
    runner: Any, folder: Path, points: list[tuple[int, Point]], settings: SearchSettings
) -> None:
    """Score these points side by side and record the results in their order."""
    futures = {}
    for number, point in points:
        if not study.same_before(folder, number, point):
            values = {"number": number, "point": point, "settings": settings, "folder": folder}
            futures[number] = runner.submit(score_trial, values)
    for number, point in points:
        figures = (
            _figures(futures[number])
            if number in futures
            else study.same_before(folder, number, point)
        )
        kept = {name: figures[name] for name in ("top1", "loss", "error") if name in figures}
        study.note(folder, number, point, **kept)
        state = figures["state"]
        value = study.score(figures["top1"], figures["loss"]) if state == "complete" else None
        study.finish(folder, number, value=value, state=state)
        said = f"top-1 {figures['top1']:.3f}" if "top1" in figures else figures["error"]
        pruned = " · given up" if state == "pruned" else ""
        notice(f"trial {number + 1}/{settings.trials} · {point.head} · {said}{pruned}")


def _figures(future: Any) -> dict[str, Any]:
    """A trial's figures; an error of one fails no other."""
    try:
        figures: dict[str, Any] = future.result()
    except Exception as error:  # any head may fail in any way, and the others continue
        text = str(error) if isinstance(error, PixelsError) else f"{type(error).__name__}: {error}"
        return {"state": "fail", "error": text}
    return figures


def _sweep_settings(settings: SearchSettings, **changes: Any) -> SweepSettings:
    """The settings by which the winner is trained, as a sweep of one."""
    names = SweepSettings.__dataclass_fields__.keys() & SearchSettings.__dataclass_fields__.keys()
    values: dict[str, Any] = {name: getattr(settings, name) for name in names}
    return SweepSettings(**(values | changes))


def _publish(settings: SearchSettings, trials: list[dict[str, Any]], winner: Outcome) -> None:
    from prefect.artifacts import create_table_artifact

    from flows.names import key

    create_table_artifact(
        key=key("search", settings.store.split(",")[0]),
        table=[
            {
                "trial": trial["trial"],
                "head": trial["point"].get("head", ""),
                "top-1": "" if trial["top1"] is None else round(trial["top1"], 4),
                "state": trial["state"],
            }
            for trial in trials
        ],
        description=f"{len(trials)} trials on {settings.store}; trained: {winner.name}",
    )
