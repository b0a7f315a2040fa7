"""Many heads from one store: a Prefect task each, over Dask, and one that fails stops no other.

Trainings run in processes, not threads: Keras' random state is a process's own, so a run of a sweep
equals the same run trained alone. A process reads the store once and keeps it for all its heads.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import re
import time
from argparse import ArgumentTypeError
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import dask
import distributed
from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from flows.extract.cluster import cluster_options, local_cluster, visible_gpus
from flows.names import key
from flows.server.settling import run_page
from flows.settings.resolve import check_settings, parser_of, require_sane
from flows.settings.training import SweepSettings
from flows.train import shared
from flows.train.opening import open_source, split_views, store_name
from pipeline import engine
from pipeline.errors import ConfigError, PixelsError
from pipeline.heads.config import TrainConfig
from pipeline.heads.holdout import holdouts_of
from pipeline.heads.plan import require_same_run
from pipeline.heads.plots import draw_missing
from pipeline.heads.run_folder import read_metrics
from pipeline.heads.work_folder import RunState, run_state
from pipeline.heads.zoo import HEADS, head_kind, require_labels, require_readable


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A trial's metrics, or its error in a sentence; `skipped`: it was finished before."""

    name: str
    head: str
    metrics: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    skipped: bool = False


@flow(name="sweep", flow_run_name="sweep ← {settings.store}", persist_result=False)
def sweep(settings: SweepSettings) -> list[Outcome]:
    """Train every trial; returns their outcomes, in the trials' order."""
    from prefect_dask import DaskTaskRunner

    check_settings(settings)
    engine.require_backend()
    with run_page() as page:
        with shared.store_warnings():
            source = open_source(split_views(settings.store)[0], skeleton=settings.skeleton)
            todo = trials(settings, source.shape)
            configs = [trial_config(settings, trial) for trial in todo]
            ways = [(config.split, config.test_set) for config in configs]
            shared.print_notes(source.table(), holdouts_of(source), ways)
        with (
            training_cluster(settings.workers, len(todo)) as cluster,
            DaskTaskRunner(cluster=cluster) as runner,
        ):
            futures = [runner.submit(train_trial, {"trial": t, "settings": settings}) for t in todo]
            outcomes = [_outcome(trial, done) for trial, done in zip(todo, futures, strict=True)]
        page.add("the leaderboard", _publish, settings, outcomes)
    return outcomes


@task(
    name="train",
    task_run_name="{trial.name}",
    retries=0,
    cache_policy=NO_CACHE,
    persist_result=False,
    log_prints=False,
)
def train_trial(trial: Trial, settings: SweepSettings) -> Outcome:
    """Train one head in this process from the store that it keeps."""
    from prefect import get_run_logger

    with shared.store_warnings():
        outcome = run_trial(trial, settings, kept_stores(settings.store, settings.skeleton))
    if outcome.skipped:
        get_run_logger().info("%s is finished already", outcome.name)
    else:
        get_run_logger().info("%s: test top-1 %.3f", trial.name, outcome.metrics["test"]["top1"])
    return outcome


def run_trial(trial: Trial, settings: SweepSettings, loaded: shared.Loaded) -> Outcome:
    """Train one head in this process, resume it, or keep it if it is finished.

    A run of this name is taken over only if it has the identity of the trial: the same clips with
    the same features and labels, split, head and settings. Raises `ConfigError`, which names every
    difference, where it has another.
    """
    folder = Path(settings.runs) / trial.name
    # The frame average is a run of the sweep itself: not once more beside every other head.
    heads = [head for head, _ in sweep_heads(settings.heads, loaded.clips.shape)]
    config = trial_config(settings, trial, baselines="frame_average" not in heads)
    state = run_state(folder)
    if state in (RunState.FINISHED, RunState.UNFINISHED) and not settings.overwrite:
        require_same_run(folder, loaded.clips, config)
        if state is RunState.FINISHED:
            draw_missing(folder)
            return Outcome(
                name=trial.name, head=trial.head, metrics=read_metrics(folder), skipped=True
            )
    resume = state is RunState.UNFINISHED and not settings.overwrite
    _, metrics = shared.train_head(loaded, config, folder, settings, resume=resume)
    return Outcome(name=trial.name, head=trial.head, metrics=metrics)


@functools.cache
def kept_stores(stores: str, skeleton: str) -> shared.Loaded:
    """The clips of these stores, read once by this process."""
    return shared.load_stores(stores, skeleton=skeleton)


@contextlib.contextmanager
def training_cluster(workers: int, trainings: int) -> Iterator[distributed.SpecCluster]:
    """A local Dask cluster of one-training processes: a GPU each, else the cores shared out.

    workers: 0 is a process per GPU, or one for every two cores but two at least where there are
    two cores: a small head leaves half of a core idle.
    """
    cores, gpus = os.cpu_count() or 1, visible_gpus()
    processes = min(workers or len(gpus) or max(min(2, cores), cores // 2), max(trainings, 1))
    framework = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    with (
        dask.config.set(cluster_options(processes, *framework)),
        local_cluster(processes, gpus, threads=1) as cluster,
    ):
        yield cluster


def trial_config(settings: SweepSettings, trial: Trial, **changes: Any) -> TrainConfig:
    return shared.make_config(
        settings, head=trial.head, options=trial.options, **changes, **trial.changes
    )


def _outcome(trial: Trial, future: Any) -> Outcome:
    """The trial's outcome; an error of one trial fails no other."""
    try:
        result: Outcome = future.result()
    except Exception as error:  # any head may fail in any way, and the others continue
        text = str(error) if isinstance(error, PixelsError) else f"{type(error).__name__}: {error}"
        return Outcome(name=trial.name, head=trial.head, error=text)
    return result


def _publish(settings: SweepSettings, outcomes: list[Outcome]) -> None:
    create_table_artifact(
        key=key("sweep", settings.store.split(",")[0]),
        table=[
            {
                "run": outcome.name,
                "top-1": round(outcome.metrics["test"]["top1"], 4) if outcome.metrics else "",
                "top-5": round(outcome.metrics["test"]["top5"], 4) if outcome.metrics else "",
                "seconds": round(outcome.metrics["seconds"], 1) if outcome.metrics else "",
                "failed": outcome.error,
            }
            for outcome in outcomes
        ],
        description=f"{len(outcomes)} heads on {settings.store}, {time.strftime('%F %R')}",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One training of a sweep. `changes` are settings that differ from the sweep's own."""

    name: str
    head: str
    options: dict[str, Any] = field(default_factory=dict)
    changes: dict[str, Any] = field(default_factory=dict)


def trials(settings: SweepSettings, shape: Sequence[int]) -> list[Trial]:
    """Every training that the heads and the grid ask for, once each, in a fixed order.

    shape: of one step in the store; without `heads` every head that reads it is taken. Raises
    `ConfigError` for an unknown head, a grid that no head knows, or an option that cannot be.
    """
    axes = _axes(settings.grid)
    if settings.seeds > 1:
        if "seed" in axes:
            raise ConfigError(f"grid has seed, and seeds is {settings.seeds}: keep one")
        axes["seed"] = [str(settings.seed + number) for number in range(settings.seeds)]
    found: dict[str, Trial] = {}
    used: set[str] = set()
    for head, own in sweep_heads(settings.heads, shape):
        known = set(HEADS[head].options()) | {"preset"}
        ours = known | set(shared.TRAINING)
        mine = {name: values for name, values in axes.items() if name in ours}
        used |= mine.keys()
        common = shared.common_options(settings, head)
        for values in itertools.product(*mine.values()):
            point = dict(zip(mine, values, strict=True))
            options = common | own | {k: v for k, v in point.items() if k in known}
            changes = {k: _typed(k, v) for k, v in point.items() if k not in known}
            name = _name(head, settings, own | point)
            found[name] = Trial(name=name, head=head, options=options, changes=changes)
    lost = sorted(axes.keys() - used)
    if lost:
        raise ConfigError(
            f"grid has {lost[0]!r}, which no training and none of the heads knows: see "
            "`pixels-once heads --head NAME`"
        )
    return list(found.values())


def sweep_heads(text: str, shape: Sequence[int]) -> list[tuple[str, dict[str, Any]]]:
    """The heads of a sweep, each with the options behind its name: `lstm:units=512 mlp`.

    Empty: every head that reads steps of this shape. Commas part the names where no head has
    options. Raises `ConfigError` for an unknown head, `SpecMismatch` for one that cannot read.
    """
    if not text.strip():
        reads = "frames" if len(shape) == 3 else "features"
        return [
            (name, {}) for name, kind in HEADS.items() if reads in kind.reads and not kind.per_step
        ]
    found = []
    for word in (text if ":" in text else text.replace(",", " ")).split():
        name, _, options = word.partition(":")
        require_labels(head_kind(name), per_step=False)
        require_readable(head_kind(name), shape)
        found.append((name, shared.parse_options(options)))
    return found


def _axes(grid: str) -> dict[str, list[str]]:
    axes: dict[str, list[str]] = {}
    for word in grid.split():
        name, equals, values = word.partition("=")
        if not equals or not values:
            raise ConfigError(f"grid has {word!r}: write name=value,value, e.g. units=128,512")
        axes[name.replace("-", "_")] = [value for value in values.split(",") if value]
    return axes


def _typed(name: str, value: str) -> Any:
    item = next(item for item in fields(SweepSettings) if item.name == name)
    try:
        typed = parser_of(item)(value)
    except (ValueError, ArgumentTypeError):
        wanted = "yes or no" if item.type == "bool" else "a number"
        raise ConfigError(f"grid has {name}={value}: give {wanted}") from None
    require_sane(item, typed)
    return typed


def _name(head: str, settings: SweepSettings, point: dict[str, Any]) -> str:
    parts = [head, settings.name or store_name(settings.store)]
    parts += [f"{name}={value}" for name, value in point.items()]
    return re.sub(r"[^A-Za-z0-9=._-]+", "-", "-".join(parts))
