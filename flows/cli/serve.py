"""`pixels-once serve`: a flow on a schedule."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from flows.cli import resolve
from flows.cli.terminal import print_json
from flows.server.home import quiet_prefect
from flows.server.lifetime import find_server
from flows.settings.resolve import setting
from pipeline.errors import ConfigError

EXAMPLES = """
pixels-once serve --videos clips/ --store clips.zarr --cron "0 2 * * *"
pixels-once serve --flow refresh --settings refresh.toml --interval 3600
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Runs a flow on a schedule until Ctrl-C; started again, it continues the same schedule."""

    flow: str = setting("features", "what to run", choices=("features", "refresh"))
    videos: str = setting("", "the clips, as for features", metavar="PATH")
    store: str = setting("", "the store, as for features", metavar="PATH")
    weights: str = setting("", "the backbone's weights, as for features", metavar="WEIGHTS")
    settings: str = setting(
        "", "TOML file with all settings of the served flow, as --config takes it", metavar="FILE"
    )
    cron: str = setting("", 'cron expression, e.g. "0 2 * * *" (at two each night)', metavar="CRON")
    interval: float = setting(0.0, "seconds from run to run, instead of --cron", metavar="S")
    timezone: str = setting("UTC", "time zone of --cron, e.g. Europe/Vienna", metavar="ZONE")
    name: str = setting("", "the deployment's name (default: the store's)", metavar="NAME")


def run(settings: Settings, *, json: bool) -> int:
    """Say when the next runs are due, then run them until Ctrl-C."""
    quiet_prefect()
    server = find_server()
    if server is None:
        raise ConfigError(
            "no Prefect server answers, and a schedule must outlive this process: start one with "
            "`make ui`, or set PREFECT_API_URL to one"
        )
    os.environ["PREFECT_API_URL"] = server.url
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: server.url}):
        from flows.schedule.deployments import Schedule, deployment_of, serve, served

        schedule = Schedule(
            cron=settings.cron, interval=settings.interval, timezone=settings.timezone
        )
        due = schedule.next_runs()
        given = {n: v for n in ("videos", "store", "weights") if (v := getattr(settings, n))}
        # The flow's own file and environment, then what `serve` was given.
        flow_settings = served(resolve(settings.flow, given, config=settings.settings))
        deployment = deployment_of(settings.flow, flow_settings, schedule, settings.name)
        name = f"{settings.flow}/{deployment.name}"
        if json:
            next_runs = [time.isoformat() for time in due]
            print_json(deployment=name, ui=server.page, next=next_runs)
        else:
            print(f"serving {name}; watch: {server.page}/deployments")
            print("next: " + ", ".join(f"{time:%Y-%m-%d %H:%M:%S %Z}" for time in due))
        sys.stdout.flush()
        serve(settings.flow, deployment, settings.name)
    return 0
