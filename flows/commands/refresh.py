"""`pixels-once refresh`: extract, retrain, promote or refuse."""

from __future__ import annotations

import sys
from dataclasses import asdict, replace

from flows.places import require_places, without_signature
from flows.server import prefect_server
from flows.settings import RefreshSettings
from flows.terminal import console, print_json

NOT_PROMOTED = 5


def run(settings: RefreshSettings, *, json: bool) -> int:
    """Run the flow and say which run is accepted now; 5 where the new one was refused."""
    settings = replace(settings, videos=without_signature(settings.videos))
    require_places(
        store_url=settings.store, videos=settings.videos
    )  # before a run's page shows them
    with prefect_server() as server:
        from prefect.exceptions import CancelledRun

        from flows.refresh import refresh

        if server is not None and server.page:
            print(f"watch: {server.page}", file=sys.stderr)
        try:
            result = refresh(settings)
        except CancelledRun as cancelled:
            print(f"pixels-once refresh: {cancelled}", file=sys.stderr)
            return 130
    if json:
        print_json(asdict(result))
    else:
        console().print(result.headline(), style="bold")
    return NOT_PROMOTED if result.outcome == "refused" else 0
