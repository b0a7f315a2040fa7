"""Settings of a check-up."""

from __future__ import annotations

from dataclasses import dataclass

from flows.settings.field import setting


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorSettings:
    """Checks this machine for everything that a run needs, and says what to do about each red line."""

    weights: str = setting(
        "imagenet", "the weights that runs will use: imagenet or a path", metavar="WEIGHTS"
    )
    backbone: str = setting("inception_v3", "the first stage that runs will use", metavar="NAME")
    store: str = setting("", "where a store will go: its disk is looked at", metavar="PATH")
    scheduler: str = setting("", "a Dask scheduler that runs will use, tcp://…", metavar="ADDRESS")
