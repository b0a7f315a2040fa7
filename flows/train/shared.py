"""What all trainings of a command share: their clips, their settings, their messages and pages."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

import store
from flows.notices import notice
from flows.settings.training import TrainingSettings, TrainSettings
from flows.train.opening import open_source, source_of, split_streams, split_views, store_name
from pipeline.errors import ConfigError, RunWarning
from pipeline.heads.changes import ClipChanges
from pipeline.heads.clips import Clips, load_clips
from pipeline.heads.config import TrainConfig
from pipeline.heads.epochs import EpochReport, OnEpoch
from pipeline.heads.holdout import Holdout
from pipeline.heads.identity import Identity
from pipeline.heads.splits import split_notes
from pipeline.heads.views import with_views
from pipeline.heads.work_folder import WorkFolder, claim_folder
from pipeline.heads.zoo import HEADS

if TYPE_CHECKING:
    from pipeline.heads.saved import Run

TRAINING = tuple(
    item.name
    for item in fields(TrainConfig)
    if item.name in TrainingSettings.__dataclass_fields__
    if item.name != "options"
)
"""Settings that a training takes as they are."""
ACCEPTED = "accepted"
"""The link in a folder of runs to the run that `refresh` has accepted."""


def print_notes(
    table: pd.DataFrame, holdouts: Sequence[Holdout], ways: Iterable[tuple[str, str]]
) -> None:
    """Print what a user should know of how clips are split, each sentence once, on standard error.

    ways: (split, test set) of each training. One that is not possible is skipped: its training
    raises the error.
    """
    notes: dict[str, None] = {}
    for how, test_set in dict.fromkeys(ways):
        with contextlib.suppress(ConfigError):
            notes |= dict.fromkeys(split_notes(table, how, holdouts, test_set))
    for note in notes:
        notice(note)


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A trained head: its run's folder and what `metrics.json` holds; `skipped`: it had been done."""

    folder: Path
    metrics: dict[str, Any]
    skipped: bool = False

    @property
    def merit(self) -> tuple[float, float]:
        """What heads are compared by before the test: the higher, the better."""
        validation = self.metrics["validation"]
        return validation["top1"], -validation["loss"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """The clips of stores, and the first stage for a later `predict`."""

    clips: Clips
    first_stage: dict[str, Any]


def load_stores(stores: str, *, skeleton: str = "auto") -> Loaded:
    """Read a store, views of the same clips (`a.zarr,b.zarr`), or streams of them (`a.zarr+b.zarr`).

    The first view is the one that a run remembers. skeleton: as a training has it. Raises `ConfigError`
    for stores without usable clips, and `SpecMismatch` if they do not belong together.
    """
    opened = [
        [store.open_all(url, frozen=True) for url in split_streams(view)]
        for view in split_views(stores)
    ]
    for each in (each for view in opened for each in view):
        counts = each.counts()
        if counts["pending"] + counts["failed"]:
            notice(
                f"training on the {counts['ready']} ready rows of {each.url}; "
                f"{counts['pending']} pending and {counts['failed']} failed rows are left out"
            )
    sources = [source_of(view, skeleton) for view in opened]
    for sentence in getattr(sources[0], "notes", ()):
        notice(sentence)
    clips, *others = (load_clips(source, skeleton=skeleton) for source in sources)
    # Of joined streams each keeps its own.
    alone = opened[0][0].attributes if len(opened[0]) == 1 else {}
    first_stage = dict(alone.get("first_stage", {}))
    first_stage["clip_seconds"] = clip_seconds(clips.table)
    if others:
        first_stage["views"] = [other.fingerprint for other in others]
    return Loaded(clips=with_views(clips, others) if others else clips, first_stage=first_stage)


def clip_seconds(table: pd.DataFrame) -> float:
    """How long a clip lasts, as a median: the span of time that a head knows. 0 if not known."""
    known = table[(table["fps"] > 0) & (table["frames_decoded"] > 0)]
    return float((known["frames_decoded"] / known["fps"]).median()) if len(known) else 0.0


@contextlib.contextmanager
def store_warnings() -> Iterator[None]:
    """Print warnings of stores and runs (rows left out) as one line each, on standard error."""
    ours = (store.StoreWarning, RunWarning)
    with warnings.catch_warnings(record=True) as caught:
        for category in ours:
            warnings.simplefilter("always", category)
        try:
            yield
        finally:
            for warning in caught:
                if issubclass(warning.category, ours):
                    notice(warning.message)


def moved_on(run: Run) -> str:
    """A sentence if the run's store has other features or labels now than the run saw; else empty.

    A head needs no store: one that has been moved, or cannot be reached, is no problem.
    """
    url = str(run.config.get("store", {}).get("url", ""))
    if not url:
        return ""
    if run.per_step:
        return ""  # its clips are whole files, and what they were labelled by is not in the store
    try:
        asked = str(run.config.get("train", {}).get("skeleton", "no"))
        source = open_source(url, skeleton=asked)
        if source.fingerprint != run.fingerprint:
            return f"{url} holds another spec now than {run.folder} was trained on"
        recorded = Identity.load(run.folder)
        # A run of an older version recorded features and no labels.
        changes = (
            ClipChanges(features=tuple(run.moved_on(source)))
            if recorded is None
            else recorded.changes(source)
        )
    except (store.StoreError, ConfigError, OSError):
        return ""
    if not (phrases := changes.phrases()):
        return ""
    return (
        f"{url} has moved on since {run.folder} was trained ({'; '.join(phrases)}): train again to "
        "follow it"
    )


def run_name(settings: TrainSettings) -> str:
    """The run's name: the one given, else the head and the store's stem."""
    return plain_name(settings.name) or f"{settings.head}-{store_name(settings.store)}"


def plain_name(name: str) -> str:
    """The name of a run that was given, or nothing. Raises `ConfigError` for one that cannot be."""
    if "/" in name or name in (".", ".."):
        raise ConfigError(f"name is {name!r}: give a plain folder name; RUNS says where runs live")
    if name == ACCEPTED:
        raise ConfigError(
            f"the name {ACCEPTED} is kept for the run that refresh has accepted: choose another"
        )
    return name


def train_config(settings: TrainSettings) -> TrainConfig:
    """The training's own config from the command's settings."""
    options: dict[str, Any] = parse_options(settings.options)
    if settings.preset:
        options["preset"] = settings.preset
    if settings.multi_label:
        if not settings.annotations:
            raise ConfigError(
                "--multi-label is given without --annotations, and clips have one label each: add "
                "--annotations FILE, or leave it out"
            )
        options["multi_label"] = True
    options |= widths(settings.head, settings.units)
    return make_config(settings, head=settings.head, options=options)


def parse_options(text: str) -> dict[str, Any]:
    """`dropout=0.3,dense=512` as a dictionary of texts, which the head's config converts."""
    options: dict[str, Any] = {}
    for pair in filter(None, text.split(",")):
        name, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"options has {pair!r}: write name=value, e.g. dropout=0.3,dense=512")
        options[name.strip()] = value.strip()
    return options


def widths(head: str, units: str) -> dict[str, Any]:
    """A head's options for these widths: `16,8` is `units` and `second_units` where it has both."""
    if not units:
        return {}
    if head not in HEADS:  # auto, which takes no options and says so, or a misspelt name
        return {"units": units}
    known = HEADS[head].options()
    if "units" not in known:
        raise ConfigError(
            f"the head {head} has no units: leave it out, its options are {', '.join(known)}"
        )
    names = ("units", "second_units") if "second_units" in known else ("units",)
    return dict(zip(names, units.split(",", len(names) - 1), strict=False))


def common_options(settings: TrainingSettings, head: str) -> dict[str, Any]:
    """Of `options` and `units`, which are for several heads, what this head knows."""
    known = set(HEADS[head].options()) | {"preset"}
    given = parse_options(settings.options)
    common = {name: value for name, value in given.items() if name in known}
    return common | (widths(head, settings.units) if "units" in known else {})


def make_config(
    settings: TrainingSettings, *, head: str, options: dict[str, Any], **changes: Any
) -> TrainConfig:
    """The config of one head's training; `changes` win over the settings."""
    values = {name: getattr(settings, name) for name in TRAINING}
    return TrainConfig(head=head, options=options, **(values | changes))


def train_head(
    loaded: Loaded,
    config: TrainConfig,
    folder: Path,
    settings: TrainingSettings,
    *hooks: OnEpoch,
    resume: bool,
) -> tuple[WorkFolder, dict[str, Any]]:
    """Train as the settings say; returns the folder worked in and the metrics. hooks: for each epoch."""
    from pipeline.heads.training import train

    work = claim_folder(folder, overwrite=settings.overwrite, resume=resume)
    if settings.tensorboard:
        from pipeline.heads.tensorboard import log_epochs

        hooks += (log_epochs(work.path / "tensorboard"),)

    def on_epoch(report: EpochReport) -> None:
        for hook in hooks:
            hook(report)

    metrics = train(
        loaded.clips,
        config,
        folder,
        overwrite=settings.overwrite,
        resume=resume,
        on_epoch=on_epoch,
        first_stage=loaded.first_stage,
    )
    return work, metrics


def print_epoch(report: EpochReport, unit: str = "clips") -> None:
    fold = f"fold {report.fold + 1}/{report.folds} · " if report.folds > 1 else ""
    if report.fold == report.folds > 1:
        fold = "all clips · "  # the last fit, which has no validation
    if report.refit:
        fold += "with validation clips · "
    if report.streams > 1:
        fold += f"stream {report.stream}/{report.streams} · "
    validation = (
        ""
        if math.isnan(report.val_top1)
        else f"validation loss {report.val_loss:.3f} · top-1 {report.val_top1:.3f} · "
    )
    member = f"member {report.member + 1}/{report.members} · " if report.members > 1 else ""
    notice(
        f"{fold}{member}epoch {report.epoch:>3}/{report.epochs} · loss {report.loss:.3f} · "
        f"top-1 {report.top1:.3f} · {validation}{report.clips_per_second:,.0f} {unit}/s"
        f"{' · best' if report.best else ''}"
    )
