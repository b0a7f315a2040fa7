"""The flow of stage two: store in, trained head out. It reports to a Prefect server if one answers."""

from __future__ import annotations

import base64
import sys
import warnings
from pathlib import Path
from typing import Any

import store
from flows.artifacts import key
from flows.settings import TrainSettings
from pipeline.errors import ConfigError
from pipeline.heads.config import TrainConfig
from pipeline.heads.fitting import EpochReport
from pipeline.heads.training import train


def run_training(settings: TrainSettings) -> tuple[Path, dict[str, Any]]:
    """Train one head from a store, without Prefect; returns the run's folder and its metrics."""
    source = store.open(settings.store)
    counts = source.counts()
    left_out = counts["pending"] + counts["failed"]
    if left_out:
        print(
            f"training on the {counts['ready']} ready rows; {counts['pending']} pending and "
            f"{counts['failed']} failed rows are left out",
            file=sys.stderr,
        )
    folder = Path(settings.runs) / run_name(settings)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", store.StoreWarning)
        metrics = train(
            source,
            train_config(settings),
            folder,
            overwrite=settings.overwrite,
            resume=settings.resume,
            on_epoch=print_epoch,
            first_stage=source.attributes.get("first_stage", {}),
        )
    for warning in caught:
        if issubclass(warning.category, store.StoreWarning):
            print(warning.message, file=sys.stderr)
    return folder, metrics


def run_training_flow(settings: TrainSettings) -> tuple[Path, dict[str, Any]]:
    """The same as a Prefect flow run, with the figures and plots on its page."""
    from prefect import flow

    @flow(
        name="train",
        flow_run_name=f"train {settings.head} ← {settings.store}",
        persist_result=False,
    )
    def train_flow(settings: TrainSettings) -> tuple[Path, dict[str, Any]]:
        from prefect.artifacts import create_markdown_artifact

        folder, metrics = run_training(settings)
        create_markdown_artifact(
            key=key("head", folder.name),
            markdown=_page(folder, metrics),
            description=f"test top-1 {metrics['test']['top1']:.3f}",
        )
        return folder, metrics

    return train_flow(settings)


def run_name(settings: TrainSettings) -> str:
    """The run's name: the one given, else the head and the store's stem."""
    if settings.name:
        if "/" in settings.name or settings.name in (".", ".."):
            raise ConfigError(
                f"name is {settings.name!r}: give a plain folder name; RUNS says where runs live"
            )
        return settings.name
    return f"{settings.head}-{key('', settings.store).lstrip('-')}"


def train_config(settings: TrainSettings) -> TrainConfig:
    """The training's own config from the command's settings."""
    options: dict[str, Any] = {}
    for pair in filter(None, settings.options.split(",")):
        name, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"options has {pair!r}: write name=value, e.g. dropout=0.3,dense=512")
        options[name.strip()] = value.strip()
    if settings.units:
        options["units"] = settings.units
    return TrainConfig(
        head=settings.head,
        options=options,
        epochs=settings.epochs,
        patience=settings.patience,
        seed=settings.seed,
        train_batch=settings.train_batch,
        lr=settings.lr,
        schedule=settings.schedule,
        split=settings.split,
        folds=settings.folds,
        class_weights=settings.class_weights,
        label_smoothing=settings.label_smoothing,
        feature_dropout=settings.feature_dropout,
        step_jitter=settings.step_jitter,
        precision=settings.precision,
    )


def print_epoch(report: EpochReport) -> None:
    """One line per epoch, on standard error."""
    fold = f"fold {report.fold + 1}/{report.folds} · " if report.folds > 1 else ""
    print(
        f"{fold}epoch {report.epoch:>3}/{report.epochs} · loss {report.loss:.3f} · "
        f"top-1 {report.top1:.3f} · validation loss {report.val_loss:.3f} · "
        f"top-1 {report.val_top1:.3f} · {report.clips_per_second:,.0f} clips/s"
        f"{' · best' if report.best else ''}",
        file=sys.stderr,
        flush=True,
    )


def _page(folder: Path, metrics: dict[str, Any]) -> str:
    lines = [f"# {folder.name}", "", "| | top-1 | top-5 | clips |", "| --- | --- | --- | --- |"]
    for part in ("test", "validation"):
        values = metrics[part]
        lines.append(
            f"| {part} | {values['top1']:.3f} | {values['top5']:.3f} | {values['clips']} |"
        )
    for name in ("curves", "confusion"):
        picture = folder / f"{name}.png"
        if picture.exists():
            data = base64.b64encode(picture.read_bytes()).decode()
            lines += ["", f"![{name}](data:image/png;base64,{data})"]
    return "\n".join(lines)
