"""What a refresh asks of `features` and of each training: one value a setting, said in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from flows.settings import FeaturesSettings, RefreshSettings, TrainSettings
from flows.settings.resolve import checked, nearest
from pipeline.errors import ConfigError

SHARED = ("videos", "store", "weights")
"""Settings of [refresh] that may stand in [refresh.features] instead."""
OWN = ("head", "store", "name", "runs", "resume", "overwrite", "test_set", "seeds")
"""Settings of a training that a refresh decides itself."""


def resolved(settings: RefreshSettings) -> RefreshSettings:
    """The settings with `videos`, `store` and `weights` taken from [refresh.features] too.

    Raises `ConfigError` where both name one of them differently, or nobody names it.
    """
    features = dict(settings.features)
    found: dict[str, Any] = {}
    for name in SHARED:
        inner, own = str(features.pop(name, "") or ""), getattr(settings, name)
        if inner and own and inner != own:
            raise ConfigError(
                f"{name} is {own!r} in [refresh] and {inner!r} in [refresh.features]: keep one"
            )
        found[name] = own or inner
    for name in ("videos", "store"):
        if not found[name]:
            raise ConfigError(f"{name} is empty: set it in [refresh] of the config file")
    return replace(settings, **found, features=features)


def features_settings(settings: RefreshSettings) -> FeaturesSettings:
    """What `features` is run with; `settings` as `resolved` gives them."""
    values = _known(settings.features, FeaturesSettings, "refresh.features")
    if values.get("dry_run"):
        raise ConfigError("[refresh.features] has dry_run: run `features --dry-run` by itself")
    own = {name: getattr(settings, name) for name in SHARED}
    return FeaturesSettings(**({"if_busy": "skip"} | values | own))


def train_settings(settings: RefreshSettings, head: str) -> TrainSettings:
    """What one head is trained with; its way to split is that of [refresh.train]."""
    from pipeline.heads.zoo import head_kind

    head_kind(head)  # an unknown head is said before hours of extraction
    shared = _known(settings.train, TrainSettings, "refresh.train")
    own = _known(settings.head.get(head, {}), TrainSettings, f"refresh.head.{head}")
    for values, where in ((shared, "refresh.train"), (own, f"refresh.head.{head}")):
        for name in OWN:
            if name in values:
                raise ConfigError(
                    f"[{where}] has {name}, which a refresh sets itself: leave it out"
                )
    return TrainSettings(**(shared | own | {"head": head, "store": settings.store}))


def _known(given: Mapping[str, Any], cls: Any, where: str) -> dict[str, Any]:
    kinds = {item.name: item.type for item in fields(cls)}
    values = {key.replace("-", "_"): value for key, value in given.items()}
    for name, value in values.items():
        if name not in kinds:
            raise ConfigError(f"[{where}] has an unknown key {name}{nearest(name, kinds)}")
        values[name] = checked(f"{name} in [{where}]", kinds[name], value)
    return values
