"""Settings of a refresh, and what of them is the extraction's and each training's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from flows.settings.features import FeaturesSettings
from flows.settings.resolve import from_table, setting, table_setting
from flows.settings.training import TrainSettings
from pipeline.errors import ConfigError

SHARED = ("videos", "store", "weights")
"""Settings of [refresh] that may be given in [refresh.features] instead."""
OWN = (
    *("head", "store", "name", "runs", "resume", "overwrite", "test_set", "seeds"),
    *("train_groups", "shuffle_steps", "annotations", "multi_label"),
)
"""Settings of a training that a refresh decides itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshSettings:
    """Extracts new clips, trains, and accepts the new head only if it is not worse."""

    videos: str = setting("", "the clips, as for features", metavar="PATH")
    store: str = setting("", "the store, as for features", metavar="PATH")
    weights: str = setting("", "the backbone's weights, as for features", metavar="WEIGHTS")
    heads: str = setting("gru", "heads to train, separated by commas", metavar="A,B")
    threshold: float = setting(
        0.05,
        "how much worse in top-1 the new head may be, −1 to 1 (below 0: how much better it must be), "
        "by the lower end of the paired interval on the test set",
        least=-1,
        most=1,
    )
    test_set: str = setting(
        "",
        "the test set that heads are compared on; the first refresh creates it if the store has none "
        "of this name (default: the store's only one, else refresh)",
        metavar="NAME",
    )
    runs: str = setting(
        "runs", "folder of all runs; RUNS/accepted is the accepted one", metavar="DIR"
    )
    always: bool = setting(False, "train even if nothing has changed since the last refresh")
    features: dict[str, Any] = table_setting("other settings of features: [refresh.features]")
    train: dict[str, Any] = table_setting("settings of every training: [refresh.train]")
    head: dict[str, Any] = table_setting("settings of one head: [refresh.head.gru]")


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
    if "," in values.get("backbone", ""):
        raise ConfigError(
            f"[refresh.features] has backbone {values['backbone']!r}, and a refresh trains on one store: "
            "name one, and run `features` by itself for several"
        )
    own = {name: getattr(settings, name) for name in SHARED}
    return FeaturesSettings(**({"if_busy": "skip"} | values | own))


def train_settings(settings: RefreshSettings, head: str) -> TrainSettings:
    """The settings of one head's training; its split is that of [refresh.train]."""
    from pipeline.heads.zoo import head_kind, require_labels

    # A head that cannot be trained is an error before hours of extraction.
    require_labels(head_kind(head), per_step=False)
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
