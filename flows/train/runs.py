"""The command `train`: one run, or one for each of several seeds, reported to a server if one answers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from flows.names import key
from flows.notices import notice
from flows.settings.resolve import LARGEST_SEED
from flows.settings.training import TrainSettings
from flows.train import shared
from flows.train.annotated import load_annotated
from pipeline import engine
from pipeline.errors import ConfigError
from pipeline.heads.choosing import chosen_head
from pipeline.heads.plan import require_same_run
from pipeline.heads.repeats import Repeats, repeats_among
from pipeline.heads.run_folder import read_metrics
from pipeline.heads.work_folder import claim_folder, is_finished
from pipeline.heads.zoo import HEADS, require_labels

OnRun = Callable[[shared.Made], None]


def run_trainings(settings: TrainSettings, on_run: OnRun | None = None) -> list[shared.Made]:
    """Train one head from a store, or one for each seed; returns the runs, a stopped one last.

    With several seeds every folder is checked before the first training; with `resume`, finished runs
    are kept if they are the runs that would be trained. Raises `ConfigError` as `train` does.
    """
    engine.require_backend()
    if settings.head in HEADS:
        # Before anything is read: the clips of long videos need no labels of their own.
        require_labels(HEADS[settings.head], per_step=bool(settings.annotations))
    todo = seeded(settings)
    keeps = settings.seeds > 1 and settings.resume and not settings.overwrite
    done = {each.name for each in todo if keeps and is_finished(_folder(each))}
    for each in todo:
        if each.name not in done:
            claim_folder(_folder(each), overwrite=each.overwrite, resume=each.resume)
    with shared.store_warnings():
        if settings.annotations:
            loaded = load_annotated(settings, shared.train_config(todo[0]))
        else:
            loaded = shared.load_stores(settings.store, skeleton=settings.skeleton)
            ways = [(settings.split, settings.test_set)]
            shared.print_notes(loaded.clips.table, loaded.clips.holdouts, ways)
        for each in todo:
            if each.name in done:
                folder = _folder(each)
                config = chosen_head(loaded.clips, shared.train_config(each), folder).config
                require_same_run(folder, loaded.clips, config)
        made: list[shared.Made] = []
        with _counting(made, len(todo)):
            for each in todo:
                folder = _folder(each)
                if each.name in done:
                    notice(f"{folder} is finished already")
                    metrics = read_metrics(folder)
                    made.append(shared.Made(folder=folder, metrics=metrics, skipped=True))
                else:
                    made.append(_trained(each, loaded))
                if on_run is not None:
                    on_run(made[-1])
                if made[-1].metrics["stopped"]:
                    break
    return made


def seeded(settings: TrainSettings) -> list[TrainSettings]:
    """The settings of each training: as they are, or `seeds` times with seeds one after another."""
    if settings.seeds == 1:
        return [settings]
    if settings.seed + settings.seeds - 1 > LARGEST_SEED:
        raise ConfigError(
            f"seed is {settings.seed} and seeds {settings.seeds}: the last would be above "
            f"{LARGEST_SEED}, begin lower"
        )
    name = shared.run_name(settings)
    return [
        replace(settings, seed=seed, seeds=1, name=f"{name}-seed={seed}")
        for seed in range(settings.seed, settings.seed + settings.seeds)
    ]


def over_seeds(made: Sequence[shared.Made]) -> Repeats | None:
    """Mean and spread of the finished runs among these; None where fewer than two are finished."""
    repeats = repeats_among([run.folder for run in made])
    return repeats[0] if repeats else None


def run_training_flow(settings: TrainSettings) -> list[shared.Made]:
    """The same as a Prefect flow run, with the figures and plots on its page."""
    from prefect import flow

    @flow(
        name="train",
        flow_run_name=f"train {settings.head} ← {settings.store}",
        persist_result=False,
    )
    def train_flow(settings: TrainSettings) -> list[shared.Made]:
        from flows.server.settling import run_page
        from flows.train.result import publish_head

        with run_page() as page:
            return run_trainings(
                settings, lambda made: publish_head(page, key("head", str(made.folder)), made)
            )

    return train_flow(settings)


def _folder(settings: TrainSettings) -> Path:
    return Path(settings.runs) / shared.run_name(settings)


@contextlib.contextmanager
def _counting(made: Sequence[shared.Made], wanted: int) -> Iterator[None]:
    """Print how many of several runs are finished, if the block ends with an error or Ctrl-C."""
    try:
        yield
    except BaseException:
        if wanted > 1:
            notice(f"{len(made)} of {wanted} runs are finished: --resume goes on")
        raise


def _trained(settings: TrainSettings, loaded: shared.Loaded) -> shared.Made:
    folder = _folder(settings)
    notice(f"training {folder}")
    config, resume = shared.train_config(settings), settings.resume
    unit = "steps" if settings.annotations else "clips"
    work, metrics = shared.train_head(
        loaded,
        config,
        folder,
        settings,
        lambda report: shared.print_epoch(report, unit),
        resume=resume,
    )
    if work.replaces and metrics["stopped"]:
        notice(
            f"{folder} is as it was; what was trained of its replacement is in {work.path}, and "
            "--resume goes on with it"
        )
        folder = work.path
    return shared.Made(folder=folder, metrics=metrics)
