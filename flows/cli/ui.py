"""`pixels-once ui`: the Prefect server with its UI, in the foreground."""

from __future__ import annotations

import signal
import sys
from dataclasses import dataclass

from flows.cli.terminal import print_json
from flows.notices import notice
from flows.server.health import answers
from flows.server.home import quiet_prefect
from flows.settings.resolve import setting

EXAMPLES = """
pixels-once ui
pixels-once ui --host 0.0.0.0 --database postgresql+asyncpg://prefect@db/prefect
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Starts the Prefect server with its UI until Ctrl-C; runs started meanwhile report to it."""

    host: str = setting(
        "127.0.0.1", "address to listen on; 0.0.0.0 for other machines", metavar="HOST"
    )
    port: int = setting(4200, "port to listen on", least=1, most=65535)
    database: str = setting(
        "",
        "where it keeps its history: postgresql+asyncpg://USER@HOST/NAME (default: SQLite in the "
        "Prefect home); a password is read from the environment where the URL says "
        "USER:${PREFECT_SERVER_DATABASE_PASSWORD}@HOST",
        metavar="URL",
    )


def run(settings: Settings, *, json: bool) -> int:
    """Start the server, print its address when it answers, and stay until Ctrl-C."""
    from flows.server.ui import EVERY_INTERFACE, prefect_ui

    shown = "127.0.0.1" if settings.host in EVERY_INTERFACE else settings.host
    address = f"http://{shown}:{settings.port}"
    if answers(f"{address}/api"):
        _say(address, json=json)
        notice("it was running already")
        return 0
    notice("starting the Prefect server …")
    ui = prefect_ui(host=settings.host, port=settings.port, database=settings.database)
    with ui as (address, pid):
        _say(address, json=json, pid=pid)
        quiet_prefect()
        from prefect.client.orchestration import SyncPrefectClient

        from flows.server.run_client import made_patient
        from flows.server.settling import settle_aloud

        with made_patient(SyncPrefectClient(f"{address}/api"), 5.0) as client:
            settle_aloud(client)
        notice(
            "runs that you start now (in another terminal) report to it by themselves; "
            f"on other machines set PREFECT_API_URL={address}/api. Ctrl-C ends it."
        )
        try:
            while True:
                signal.pause()
        except KeyboardInterrupt:
            notice("the Prefect server has ended; its history stays")
    return 0


def _say(address: str, *, json: bool, pid: int | None = None) -> None:
    if json:
        print_json({"ui": address, "api": f"{address}/api", "pid": pid})
    else:
        print(f"watch: {address}")
    sys.stdout.flush()
