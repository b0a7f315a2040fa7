"""`pixels-once refresh`: extract, retrain, promote or refuse."""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from typing import Any

from flows.cli.terminal import headline, print_json, print_table
from flows.server.lifetime import prefect_server
from flows.settings import RefreshSettings as Settings
from flows.settings.training import resolved

NOT_PROMOTED = 5


EXAMPLES = "pixels-once refresh --config refresh.toml"


def run(settings: Settings, *, json: bool) -> int:
    """Run the flow and say which run is accepted now; 5 where the new one was refused.

    Asked to stop, it ends with 130 or 143, and nothing was promoted.
    """
    from flows.extract.request import require_addresses, without_signature

    settings = resolved(settings)
    settings = replace(settings, videos=without_signature(settings.videos))
    require_addresses(
        store_url=settings.store, videos=settings.videos
    )  # before a run's page shows them
    with prefect_server(importing="flows.train.refresh") as server:
        from prefect.exceptions import CancelledRun

        from flows.train.refresh import refresh

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
        if result.classes:
            print_table(
                f"{result.clips} clips of {result.test_set} in {result.groups} groups",
                ("class", "clips", "recall", "accepted", "difference"),
                [_line(line) for line in result.classes],
            )
        headline(result.headline())
    if result.outcome == "interrupted":
        return 143 if result.stopped_by == "SIGTERM" else 130
    return NOT_PROMOTED if result.outcome == "refused" else 0


def _line(line: dict[str, Any]) -> tuple[str, int, str, str, str]:
    """One class: its clips, and the recall of both heads."""
    rival = "accepted_recall" in line
    return (
        line["class"],
        line["clips"],
        f"{line['recall']:.3f}",
        f"{line['accepted_recall']:.3f}" if rival else "",
        f"{line['difference']:+.3f}" if rival else "",
    )
