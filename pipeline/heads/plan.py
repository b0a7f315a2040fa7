"""What a training would do, before it does anything: clips, splits, settings and its identity."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import engine
from pipeline.errors import ConfigError
from pipeline.heads.changes import ClipChanges
from pipeline.heads.clips import Clips
from pipeline.heads.config import TrainConfig
from pipeline.heads.gate import require_apart
from pipeline.heads.identity import Identity
from pipeline.heads.notes import split_notes
from pipeline.heads.resolved import resolve
from pipeline.heads.run_folder import (
    CHECKPOINT,
    DONE,
    FORMAT,
    FORMAT_VERSION,
    recorded_splits,
    split_record,
)
from pipeline.heads.splits import Split, make_folds, make_split, resolve_way

FOLDED = ("kfold", "leave_one_group_out")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """A training that may begin. `asked` are the settings as given, `settings` as they are used."""

    clips: Clips
    splits: tuple[Split, ...]
    asked: TrainConfig
    settings: TrainConfig
    identity: Identity
    resumed: bool

    def __repr__(self) -> str:
        return f"Plan({self.identity!r}, resumed={self.resumed})"


def plan_training(clips: Clips, config: TrainConfig, resumed: Path | None = None) -> Plan:
    """Split the clips and settle every setting; `resumed` is the folder of a run that goes on.

    A resumed run keeps to the clips and the split that it began with, by id, whichever rows they
    have now. Raises `ConfigError`, which names every difference, where they or the settings are not
    what the run recorded, and where it recorded too little to tell.
    """
    recorded = None
    if resumed is not None and (resumed / "config.json").exists():
        recorded = Identity.load(resumed)
    if resumed is not None and recorded is None and _has_state(resumed):
        raise ConfigError(
            f"the run {resumed} does not record which labels and features it was begun with (an "
            "older version made it), so it cannot be resumed: start over with --overwrite"
        )
    if resumed is None or recorded is None:
        splits = _splits(clips, config)
        _require_apart(clips, splits)
        settings = resolve(config, splits)
        return Plan(
            clips=clips,
            splits=splits,
            asked=config,
            settings=settings,
            identity=Identity.of(clips, splits, settings),
            resumed=False,
        )
    name = f"the run {resumed}"
    clips = recorded.align(clips, name)
    splits = tuple(recorded_splits(resumed))
    _require_apart(clips, splits)
    asked = resolve_way(clips.table, config.split)
    settings = resolve(config, splits, how=asked)
    recorded.require(Identity.of(clips, splits, settings), name)
    return Plan(
        clips=clips,
        splits=splits,
        asked=config,
        settings=settings,
        identity=recorded,
        resumed=True,
    )


def require_same_run(folder: Path, clips: Clips, config: TrainConfig) -> None:
    """Raise `ConfigError`, which names every difference, unless a training would make this run.

    Stricter than resuming: clips that came since are a difference too.
    """
    recorded = Identity.load(folder)
    if recorded is None and not _has_state(folder):
        return  # it died before its first epoch ended: nothing of it is taken over
    if recorded is None:
        raise ConfigError(
            f"the run {folder} does not record which labels and features it was trained with (an "
            "older version made it), so it may be another: choose another name or pass --overwrite"
        )
    # The split is the recorded one, as in a run that is resumed: how one is cut may have changed.
    plan_training(clips, config, folder)
    recorded.require_no_more(clips, f"the run {folder}")


def run_config(
    name: str, plan: Plan, first_stage: Mapping[str, Any], before: Identity | None
) -> dict[str, Any]:
    """Everything that decided a run, as plain JSON values: what `config.json` holds.

    `before` is the identity of the run that this one replaces: `since` says which clips came, went
    or changed.
    """
    packages = ("keras", "numpy", "pixels-once")
    clips, splits = plan.clips, plan.splits
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "name": name,
        "identity": plan.identity.hash,
        "head": dict(plan.identity.head),
        "train": plan.settings.to_dict(),
        "asked": plan.asked.to_dict(),
        "store": {"url": str(getattr(clips.source, "url", "")), "fingerprint": clips.fingerprint},
        "fingerprint": clips.fingerprint,
        "spec": dict(clips.spec),
        "classes": list(clips.classes),
        "steps": clips.steps,
        "shape": list(clips.shape),
        "first_stage": dict(first_stage),
        "left_out": dict(clips.left_out),
        "notes": split_notes(clips.table, plan.asked.split, clips.holdouts, plan.asked.test_set),
        "since": {}
        if before is None
        else ClipChanges.between(before.clips, plan.identity.clips).to_dict(),
        "backend": engine.backend_name(),
        "software": {package: _version(package) for package in packages} | engine.software(),
        "split": split_record(clips, splits[0]),
        "folds": [split_record(clips, split) for split in splits] if len(splits) > 1 else [],
    }


def _splits(clips: Clips, config: TrainConfig) -> tuple[Split, ...]:
    how = resolve_way(clips.table, config.split)
    options: dict[str, Any] = {
        "how": how,
        "seed": config.seed,
        "fractions": config.fractions,
        "holdouts": clips.holdouts,
    }
    if how in FOLDED:
        return tuple(make_folds(clips.table, folds=config.folds, **options))
    return (make_split(clips.table, test_set=config.test_set, **options),)


def _require_apart(clips: Clips, splits: Sequence[Split]) -> None:
    for split in splits:
        require_apart(clips, split)


def _has_state(folder: Path) -> bool:
    """Whether a run holds anything that a later one would take over."""
    return (
        (folder / DONE).exists()
        or any((folder / CHECKPOINT).glob("*.json"))
        or any([*folder.glob(f"folds/*/{DONE}"), *folder.glob(f"folds/*/{CHECKPOINT}/*.json")])
    )


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
