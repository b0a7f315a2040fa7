"""Settings of a refresh, and of the `features` and the trainings in it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from flows.settings.features import FeaturesSettings
from flows.settings.field import setting
from flows.settings.resolve import from_table
from flows.settings.training import TrainSettings
from pipeline.errors import ConfigError

SHARED = ("videos", "store", "weights")
"""Settings of [refresh] that may be given in [refresh.features] instead."""
OWN = ("head", "store", "name", "runs", "resume", "overwrite", "test_set", "seeds")
"""Settings of a training that a refresh decides itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshSettings:
    """Extract what is new, retrain, and accept the new head only if it is not worse."""

    videos: str = setting("", "the clips, as for features", metavar="PATH")
    store: str = setting("", "the store, as for features", metavar="PATH")
    weights: str = setting("", "the backbone's weights, as for features", metavar="WEIGHTS")
    heads: str = setting("gru", "heads to train, separated by commas", metavar="A,B")
    threshold: float = setting(
        0.05,
        "how much worse in top-1 the new head may be, −1 to 1 (below 0: so much better it must be): "
        "the low end of the paired interval on the test set is held against it",
        metavar="X",
        least=-1,
        most=1,
    )
    test_set: str = setting(
        "",
        "the test set that heads are judged by; the first refresh makes it where the store has none "
        "of this name (default: the store's only one, else refresh)",
        metavar="NAME",
    )
    runs: str = setting(
        "runs", "folder of all runs; RUNS/accepted is the accepted one", metavar="DIR"
    )
    always: bool = setting(False, "train even if the store is as it was at the last refresh")
    features: dict[str, Any] = field(
        default_factory=dict,
        metadata={"help": "other settings of features: [refresh.features]", "file_only": True},
    )
    train: dict[str, Any] = field(
        default_factory=dict,
        metadata={"help": "settings of every training: [refresh.train]", "file_only": True},
    )
    head: dict[str, Any] = field(
        default_factory=dict,
        metadata={"help": "settings of one head: [refresh.head.gru]", "file_only": True},
    )


def resolved(settings: RefreshSettings) -> RefreshSettings:
    """The settings with `videos`, `store` and `weights` taken from [refresh.features] too.

    Raises `ConfigError` if the two differ, or if neither is given.
    """
    features = dict(settings.features)
    shared: dict[str, Any] = {}
    for name in SHARED:
        inner, own = str(features.pop(name, "") or ""), getattr(settings, name)
        if inner and own and inner != own:
            raise ConfigError(
                f"{name} is {own!r} in [refresh] and {inner!r} in [refresh.features]: keep one"
            )
        shared[name] = own or inner
    for name in ("videos", "store"):
        if not shared[name]:
            raise ConfigError(f"{name} is empty: set it in [refresh] of the config file")
    return replace(settings, **shared, features=features)


def features_settings(settings: RefreshSettings) -> FeaturesSettings:
    """The settings of `features` in a refresh; `settings` as `resolved` returns them."""
    values = from_table(FeaturesSettings, settings.features, "[refresh.features]")
    if values.get("dry_run"):
        raise ConfigError("[refresh.features] has dry_run: run `features --dry-run` by itself")
    own = {name: getattr(settings, name) for name in SHARED}
    return FeaturesSettings(**({"if_busy": "skip"} | values | own))


def train_settings(settings: RefreshSettings, head: str) -> TrainSettings:
    """The settings of one head's training; its split is that of [refresh.train]."""
    from pipeline.heads.zoo import head_kind

    head_kind(head)  # an unknown head is an error before hours of extraction
    values: dict[str, Any] = {"head": head, "store": settings.store}
    for table, where in (
        (settings.train, "[refresh.train]"),
        (settings.head.get(head, {}), f"[refresh.head.{head}]"),
    ):
        given = from_table(TrainSettings, table, where)
        for name in OWN:
            if name in given:
                raise ConfigError(f"{where} has {name}, which a refresh sets itself: leave it out")
        values |= given
    return TrainSettings(**values)
