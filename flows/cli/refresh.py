"""`pixels-once refresh`: extract, retrain, promote or refuse."""

from __future__ import annotations

from dataclasses import asdict, replace

from flows.cli.terminal import headline, print_json, print_table
from flows.server.lifetime import importing, prefect_server
from flows.settings.refresh import RefreshSettings as Settings
from flows.settings.refresh import resolved
from flows.stopping import stopped_status

NOT_PROMOTED = 5

EXAMPLES = "pixels-once refresh --config refresh.toml"


def run(settings: Settings, *, json: bool) -> int:
    """Run the flow; 5 where the new run was refused, 130 or 143 where it was asked to stop."""
    from flows.extract.request import require_addresses, without_signature

    settings = resolved(settings)
    settings = replace(settings, videos=without_signature(settings.videos))
    require_addresses(settings)  # before a run's page shows them
    with prefect_server(beside=importing("flows.train.refresh")):
        from flows.train.refresh import refresh

        result = refresh(settings)
    if json:
        print_json(asdict(result))
    else:
        if result.classes:
            print_table(
                f"{result.clips} clips of {result.test_set} in {result.groups} groups",
                ("class", "clips", "recall", "accepted", "difference"),
                result.class_rows(),
            )
        headline(result.headline())
    if result.outcome == "interrupted":
        return stopped_status(result.stopped_by)
    return NOT_PROMOTED if result.outcome == "refused" else 0
