"""`pixels-once serve`: a flow on a schedule."""

from __future__ import annotations

import os
import sys

from flows.cli.terminal import print_json
from flows.server.lifetime import find_server, quiet_prefect
from flows.settings import ServeSettings
from pipeline.errors import ConfigError


def run(settings: ServeSettings, *, json: bool) -> int:
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
        from flows.schedule.deployments import deployment_of, next_runs, serve

        due = next_runs(settings)
        deployment = deployment_of(settings)
        if json:
            print_json(
                {
                    "deployment": f"{settings.flow}/{deployment.name}",
                    "ui": server.page,
                    "next": [time.isoformat() for time in due],
                }
            )
        else:
            print(f"serving {settings.flow}/{deployment.name}; watch: {server.page}/deployments")
            print("next: " + ", ".join(f"{time:%Y-%m-%d %H:%M:%S %Z}" for time in due))
        sys.stdout.flush()
        serve(settings, deployment)
    return 0
