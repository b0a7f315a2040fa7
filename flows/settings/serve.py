"""Settings of a schedule."""

from __future__ import annotations

from dataclasses import dataclass

from flows.settings.field import setting


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSettings:
    """Runs a flow on a schedule, until Ctrl-C; the schedule stays when this is started again."""

    flow: str = setting("features", "what to run", choices=("features", "refresh"))
    videos: str = setting("", "the clips, as for features", metavar="PATH")
    store: str = setting("", "the store, as for features", metavar="PATH")
    weights: str = setting("", "the backbone's weights, as for features", metavar="WEIGHTS")
    settings: str = setting(
        "", "TOML file with all settings of the served flow, as --config takes it", metavar="FILE"
    )
    cron: str = setting("", 'when, e.g. "0 2 * * *" (at two each night)', metavar="CRON")
    interval: float = setting(0.0, "or every so many seconds", metavar="S")
    timezone: str = setting("UTC", "of --cron, e.g. Europe/Vienna", metavar="ZONE")
    name: str = setting("", "the deployment's name (default: the store's)", metavar="NAME")
