"""What a training will do, settled before it starts: clips, splits, settings and its identity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import engine
from pipeline.errors import ConfigError
from pipeline.heads import run_folder
from pipeline.heads.changes import ClipChanges
from pipeline.heads.clips import Clips
from pipeline.heads.config import DEFAULTS, FEW, FEW_TRAINED, TrainConfig
from pipeline.heads.identity import Identity
from pipeline.heads.leakage import require_apart
from pipeline.heads.splits import FOLDED, Split, make_folds, make_split, resolve_way, split_notes
from pipeline.heads.steps.planning import settled, video_notes
from pipeline.heads.steps.splitting import split_videos
from pipeline.heads.steps.videos import StepClips
from pipeline.heads.streams import streams_in
from pipeline.heads.thinning import with_share
from pipeline.heads.zoo import HeadKind, config_dict, head_kind
from pipeline.heads.zoo.kinds import FITS

WIDE = 512
"""From this recurrent width on, bfloat16 products and larger batches pay on a CPU."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """A training that may start. `asked` are the settings as given, `settings` as they are used."""

    clips: Clips
    splits: tuple[Split, ...]
    asked: TrainConfig
    settings: TrainConfig
    identity: Identity
    resumed: bool

    def __repr__(self) -> str:
        return f"Plan({self.identity!r}, resumed={self.resumed})"


def plan_training(clips: Clips, config: TrainConfig, resumed: Path | None = None) -> Plan:
    """Split the clips and resolve every setting; `resumed` is the folder of a run to resume.

    A resumed run keeps the clips and the split that it began with, by id, whichever rows they
    have now. Raises `ConfigError`, which names every difference, if they or the settings are not
    what the run recorded, or if it recorded too little to tell.
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
        splits, how = make_splits(clips, config), ""
    else:
        clips = recorded.align(clips, f"the run {resumed}")
        splits = tuple(run_folder.recorded_splits(run_folder.read_config(resumed)))
        how = "" if isinstance(clips, StepClips) else resolve_way(clips.table, config.split)
    for split in splits:
        require_apart(clips, split)
    require_streams(clips, config)
    begun = _as_begun(config, recorded)
    if isinstance(clips, StepClips):
        begun, how = settled(begun, splits), splits[0].how
    settings = resolve(begun, splits, how=how, recorded=recorded)
    settings = replace(settings, skeleton=_skeleton(clips, config))
    if recorded is not None and config.precision == "auto":
        # A resumed run keeps its own, whatever `auto` meant in the version that began it.
        precision = str(recorded.settings.get("precision", ""))
        if precision in engine.precisions():
            settings = replace(settings, precision=precision)
    identity = Identity.of(clips, splits, settings)
    if recorded is not None:
        recorded.require(identity, f"the run {resumed}")
    return Plan(
        clips=clips,
        splits=splits,
        asked=config,
        settings=settings,
        identity=recorded or identity,
        resumed=recorded is not None,
    )


def _as_begun(config: TrainConfig, recorded: Identity | None) -> TrainConfig:
    """The settings with the preset of the run that is resumed, where none is given.

    A run that was begun before there were presets for few clips, or with more clips, keeps its own.
    """
    kind = head_kind(config.head)
    if recorded is None or config.options or not kind.few or recorded.head["name"] != kind.name:
        return config
    for preset in (kind.few, "standard"):
        if config_dict(kind.configure({"preset": preset})) == recorded.head["config"]:
            return replace(config, options={"preset": preset})
    return config


def resolve(
    config: TrainConfig,
    splits: Sequence[Split],
    *,
    how: str = "",
    recorded: Identity | None = None,
) -> TrainConfig:
    """The settings with every 0 and `auto` replaced by the value used on this machine for these splits.

    how: the way to split, if it is not that of `splits`: a resumed run may be asked for another
    recorded: what a run that is resumed was begun with

    The folds of a cross-validation and the last fit on all clips share one batch, that of the
    smallest fold, so that their mean is a figure of one setting.
    """
    kind = head_kind(config.head)
    clips = min(len(split.train) for split in splits)
    if kind.few and not config.options and clips < FEW_TRAINED:
        config = replace(config, options={"preset": kind.few})
    config = _with_recipe(config, kind, recorded)
    configured = kind.configure(config.options)
    wide = getattr(configured, "units", 0) >= WIDE
    stopping = config.stopping
    if stopping == "auto":
        few = min(len(split.validation) for split in splits) < FEW
        stopping = "fixed" if few else "validation"
    how = how or splits[0].how
    return replace(
        config,
        lr=config.lr or kind.lr,
        train_batch=config.train_batch or auto_batch(clips, wide=wide),
        precision=auto_precision(wide=wide) if config.precision == "auto" else config.precision,
        stopping=stopping,
        # What is solved for has no random part to average over.
        ensemble=1 if getattr(configured, "fit", FITS[0]) == "solved" else config.ensemble,
        split=how,
        folds=config.folds if how == "kfold" else len(splits),
    )


def _with_recipe(config: TrainConfig, kind: HeadKind, recorded: Identity | None) -> TrainConfig:
    """The settings with those that the head's preset brings, where they have their defaults.

    A resumed run keeps those that it was begun with: the version that began it may have brought others.
    """
    recipe = kind.recipes.get(str(config.options.get("preset", "")), {})
    if recorded is not None:
        begun = DEFAULTS.to_dict(whole=True) | dict(recorded.settings)
        recipe = {name: begun[name] for name in recipe}
    left = [name for name in recipe if getattr(config, name) == getattr(DEFAULTS, name)]
    return replace(config, **{name: recipe[name] for name in left})


def auto_precision(*, wide: bool) -> str:
    """The precision that `auto` means for a head: bfloat16 for wide ones if the hardware has it.

    JAX on a CPU is slower in bfloat16: a GRU of 512 trains half as fast as in float32. float16 is not
    offered: it would need loss scaling and gains nothing over these for a head.
    """
    if engine.backend_name() == "jax" and engine.device_hint() == "cpu":
        return "float32"
    return "bfloat16" if wide and engine.auto_precision() == "bfloat16" else "float32"


def auto_batch(training_clips: int, *, wide: bool) -> int:
    """Clips per training step: as many as are fast on a CPU, but at least eight steps an epoch."""
    most = 128 if wide else 64
    few = max(training_clips // 8, 1)
    return int(min(most, max(8, 2 ** int(np.log2(few)))))


def require_same_run(folder: Path, clips: Clips, config: TrainConfig) -> None:
    """Raise `ConfigError`, which names every difference, unless a training would make this run.

    Stricter than resuming: clips that were added since are a difference too.
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

    `before` is the identity of the run that this one replaces: `since` lists the clips that were added,
    removed or changed.
    """
    versions = {name: engine.version(name) for name in ("keras", "numpy", "pixels-once")}
    clips, splits = plan.clips, plan.splits
    return {
        "format": run_folder.FORMAT,
        "format_version": run_folder.FORMAT_VERSION,
        "name": name,
        "identity": plan.identity.hash,
        "head": dict(plan.identity.head),
        "train": plan.settings.to_dict(),
        "asked": plan.asked.to_dict(),
        "store": _store_record(clips),
        "fingerprint": clips.fingerprint,
        "spec": dict(clips.spec),
        "classes": list(clips.classes),
        "steps": clips.steps,
        "shape": list(clips.shape),
        "first_stage": dict(first_stage),
        **(
            {"streams": [each.to_dict() for each in streams_in(clips)]} if streams_in(clips) else {}
        ),
        "left_out": dict(clips.left_out),
        "notes": video_notes(clips, splits)
        if isinstance(clips, StepClips)
        else split_notes(clips.table, plan.asked.split, clips.holdouts, plan.asked.test_set),
        "since": {}
        if before is None
        else ClipChanges.between(before.clips, plan.identity.clips).to_dict(),
        "backend": engine.backend_name(),
        "software": versions | engine.software(),
        "split": run_folder.split_record(clips, splits[0]),
        "folds": [run_folder.split_record(clips, split) for split in splits]
        if len(splits) > 1
        else [],
    }


def _store_record(clips: Clips) -> dict[str, Any]:
    """Where the clips came from; of shards, each store and its fingerprint."""
    source: Any = clips.source
    record: dict[str, Any] = {"url": str(getattr(source, "url", ""))}
    if shards := getattr(source, "stores", ()):
        record["shards"] = [{"url": one.url, "fingerprint": one.fingerprint} for one in shards]
    return record | {"fingerprint": clips.fingerprint}


def _skeleton(clips: Clips, config: TrainConfig) -> str:
    read = "yes" if clips.skeleton else "no"
    if config.skeleton not in ("auto", read):
        raise ConfigError(
            f"skeleton is {config.skeleton}, and the clips were loaded with {read}: give one value of it "
            "to all trainings that share them"
        )
    return read


def require_streams(clips: Clips, config: TrainConfig) -> None:
    """Raise `ConfigError` for a way to join streams where there are none."""
    if config.join != DEFAULTS.join and not streams_in(clips):
        raise ConfigError(
            f"join is {config.join}, and the clips are of one store: name several with + between "
            "(a.zarr+b.zarr), or leave it out"
        )


def make_splits(clips: Clips, config: TrainConfig) -> tuple[Split, ...]:
    """The splits that a training of these clips with these settings has; raises `ConfigError`."""
    if isinstance(clips, StepClips):
        return split_videos(clips, config)
    how = resolve_way(clips.table, config.split)
    if config.repeats > 1 and how != "kfold":
        raise ConfigError(
            f"repeats is {config.repeats} and split is {how}: folds are repeated, so add --split kfold"
        )
    options: dict[str, Any] = {
        "how": how,
        "seed": config.seed,
        "fractions": config.fractions,
        "holdouts": clips.holdouts,
    }
    if how in FOLDED:
        splits = make_folds(clips.table, folds=config.folds, repeats=config.repeats, **options)
    else:
        splits = [make_split(clips.table, test_set=config.test_set, **options)]
    return tuple(with_share(clips.table, split, config.train_groups) for split in splits)


def _has_state(folder: Path) -> bool:
    """Whether a run holds anything that a later one would reuse."""
    states = (
        run_folder.DONE,
        f"{run_folder.CHECKPOINT}/**/*.json",
        f"folds/*/{run_folder.DONE}",
        f"folds/*/{run_folder.CHECKPOINT}/**/*.json",
    )
    return any(path for state in states for path in folder.glob(state))
