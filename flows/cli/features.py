"""`pixels-once features`: clips → store."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from flows.cli.terminal import headline, print_json, print_table, suggest
from flows.notices import notice
from flows.server.lifetime import find_server, prefect_server
from flows.settings.features import FeaturesSettings as Settings
from flows.stopping import stopped_status

if TYPE_CHECKING:
    from flows.extract.summary import Summary

EXAMPLES = """
pixels-once features --videos clips/ --store clips.zarr --weights imagenet
pixels-once features --videos clips/ --store clips.zarr --dry-run
pixels-once features --videos clips/ --store clips.zarr --retry timed_out
"""


def run(settings: Settings, *, json: bool) -> int:
    from flows.extract.request import checked, without_signature

    # What cannot be is refused before a run's page shows it.
    settings = checked(replace(settings, videos=without_signature(settings.videos)))
    notice(f"store: {settings.store}")
    if find_server() is None:  # to start one takes longer than to see that there is nothing to do
        from flows.extract.setup import run_idle

        if (idle := run_idle(settings)) is not None:
            print_summary(idle, json=json)
            return 0
    with prefect_server(importing="flows.extract.flow"):
        from flows.extract.flow import features
        from flows.extract.summary import RunFailed

        status = 0
        try:
            summary = features(settings)
        except RunFailed as error:
            notice(f"pixels-once features: {error}")
            summary, status = error.summary, error.exit_status
    print_summary(summary, json=json)
    if summary.outcome == "interrupted":
        return stopped_status(summary.stopped_by)
    return status


def print_summary(summary: Summary, *, json: bool = False) -> None:
    """The run in numbers: a headline, where the time went, what failed, the next step."""
    if json:
        print_json(summary.to_dict())
        return
    from flows.extract.summary import advice, stage_rows

    if summary.stage_seconds and summary.planned:
        print_table(
            "where the time went",
            ("stage", "seconds", "share"),
            [(n, s, f"{share:.0%}") for n, s, share in stage_rows(summary.stage_seconds)],
        )
        print(advice(summary.stage_seconds))
    if summary.failures:
        print_table(
            f"failed clips ({len(summary.failures)})",
            ("clip", "reason", "detail"),
            [(f["video_id"], f["reason"], f["detail"]) for f in summary.failures[:50]],
        )
    for sentence in summary.sentences():
        print(sentence)
    headline(summary.headline())
    if summary.outcome == "done" and summary.ready:
        suggest("train", "--store", summary.store, "--head", "gru")
