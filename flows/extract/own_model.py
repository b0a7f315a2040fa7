"""The first stage of a run that is a model of the user's: its file or code, and what is known of it."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.settings.features import FeaturesSettings
from pipeline.errors import ConfigError, WeightsNotFound
from pipeline.features.backbones import is_code, is_model, model_family, resolve_weights
from pipeline.features.backbones.family import BackboneKind, Weights
from pipeline.features.backbones.model_config import ModelConfig
from pipeline.features.backbones.model_trial import Trial, is_file, try_model
from pipeline.features.stage import remembered_weights
from pipeline.spec import Spec

_VIDEOS = (".mp4", ".avi", ".mkv", ".webm", ".mov", ".mpg", ".mpeg", ".m4v", ".wmv", ".flv")
_MOST_LISTED = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A first stage that can be loaded. setting: what leads workers to its weights.

    precision: what `auto` means for it; "" where that is the machine's choice. said: why that one, where
    it was measured now. trial: where it was tried now.
    """

    kind: BackboneKind
    weights: Weights
    setting: str
    precision: str = ""
    said: str = ""
    trial: Trial | None = None


def is_own_model(backbone: str) -> bool:
    """Whether a setting, or a spec's backbone, is a model of the user's."""
    return is_model(backbone) or backbone in model_family.FILES


def model_of(
    settings: FeaturesSettings, stored: Spec | None, remembered: Mapping[str, Any]
) -> Model:
    """The model that the settings name, else the store's own. remembered: its `first_stage`.

    Features that exist say how their model is fed: with the same model, and no TOML file that says
    otherwise, nothing has to be found out. Raises `ConfigError` where the model is no first stage.
    """
    own = stored is not None and settings.backbone in ("", stored.backbone)
    if own and stored is not None and not settings.backbone_config:
        return _stored(settings, stored, remembered)
    source = settings.backbone
    if own and stored is not None and stored.backbone in model_family.FILES:
        source = settings.weights or remembered_weights(stored, remembered)
    if source in model_family.FILES:
        raise ConfigError(
            f"backbone is {source!r}: name the model file itself, e.g. BACKBONE=model.{source}"
        )
    if settings.weights and settings.weights != source:
        raise ConfigError(
            f"weights is {settings.weights!r} and {source} has its own: leave WEIGHTS out"
        )
    return _named(source, settings, stored)


def _stored(settings: FeaturesSettings, stored: Spec, remembered: Mapping[str, Any]) -> Model:
    kind = BackboneKind.of(stored)
    if is_code(stored.backbone):
        trial = _trial(stored.backbone, ModelConfig(), settings.engine, "", kind)
        weights = Weights(kind="code", hash=trial.hash)
        return Model(kind=kind, weights=weights, setting=trial.hash)
    path = settings.weights or remembered_weights(stored, remembered)
    try:
        weights = resolve_weights(path, stored.backbone)
    except WeightsNotFound as error:
        if settings.weights:
            raise
        raise WeightsNotFound(
            f"{settings.store} was made with the model file {path!r} ({stored.weights[:19]}…), which is "
            "not there: set WEIGHTS to the path that it has now"
        ) from error
    return Model(kind=kind, weights=weights, setting=str(weights.path))


def _named(source: str, settings: FeaturesSettings, stored: Spec | None) -> Model:
    config = config_of(source, settings.backbone_config)
    if is_file(source) and stored is not None and not config.source:
        weights = resolve_weights(source, Path(source).suffix[1:])
        if weights.hash == stored.weights:
            kind = BackboneKind.of(stored)
            return Model(kind=kind, weights=weights, setting=str(weights.path))
    trial = _trial(source, config, settings.engine, first_video(settings.videos), None)
    if is_file(source):
        weights = resolve_weights(source, trial.kind.name)
        setting = str(weights.path)
    else:
        weights, setting = Weights(kind="code", hash=trial.hash), trial.hash
    return Model(
        kind=trial.kind,
        weights=weights,
        setting=setting,
        precision=trial.precision,
        said=trial.said if settings.precision == "auto" and stored is None else "",
        trial=trial,
    )


def config_of(source: str, named: str) -> ModelConfig:
    """What is said of a model: in the file that is named, else in the one beside a model file."""
    if is_file(source):
        return ModelConfig.beside(Path(source).expanduser(), named)
    return ModelConfig.read(Path(named).expanduser()) if named else ModelConfig()


def _trial(
    source: str, config: ModelConfig, engine: str, clip: str, known: BackboneKind | None
) -> Trial:
    if is_file(source):
        return try_model(source, config, engine=engine, clip=clip)
    with _one_trial:
        return _trial_of_code(source, config, engine, clip, known)


_one_trial = threading.Lock()


@functools.cache
def _trial_of_code(
    source: str, config: ModelConfig, engine: str, clip: str, known: BackboneKind | None
) -> Trial:
    """Once for all that ask in this process: what code returns may take long, and may change."""
    if known is not None and known.preprocessing is not None:
        pre = known.preprocessing
        config = ModelConfig(
            size=known.size,
            scale=pre.scale,
            pool=pre.pool,
            output=pre.output or None,
            window=known.window if known.window > 1 else None,
            layout=pre.layout,
        )
    return try_model(source, config, engine=engine, clip=clip)


def first_video(videos: str) -> str:
    """A video under a local folder, or the one that is named; "" where that takes more than a look."""
    if not videos or "://" in videos:
        return ""
    if videos.lower().endswith(_VIDEOS):
        return os.path.abspath(videos)
    listed = 0
    for folder, folders, files in os.walk(videos):
        folders.sort()
        for name in sorted(files):
            if name.lower().endswith(_VIDEOS):
                return os.path.abspath(os.path.join(folder, name))
        listed += len(files)
        if listed > _MOST_LISTED:
            break
    return ""
