"""`pixels-once features`: clips → store."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from flows.cli.terminal import headline, print_json, print_table, suggest
from flows.notices import notice
from flows.server.lifetime import find_server, importing, prefect_server
from flows.settings.features import FeaturesSettings as Settings
from flows.stopping import stopped_status

if TYPE_CHECKING:
    from flows.extract.summary import Summaries, Summary

EXAMPLES = """
pixels-once features --videos clips/ --store clips.zarr --weights imagenet
pixels-once features --videos clips/ --store clips.zarr --dry-run
pixels-once features --videos clips/ --backbone inception_v3,model.onnx --store "features/{backbone}.zarr"
pixels-once features --videos clips/ --store clips.zarr --retry timed_out
"""


def run(settings: Settings, *, json: bool) -> int:
    from flows.extract.each_store import each_store
    from flows.extract.request import checked, without_signature

    # What cannot be is refused before a run's page shows it.
    settings = checked(replace(settings, videos=without_signature(settings.videos)))
    requests = each_store(settings)
    for each in requests.values():
        require_model(each)
        notice(f"store: {each.store}")
    stores = [each.store for each in requests.values()]
    has_work = any("://" not in url and not os.path.lexists(url) for url in stores)
    if not has_work and find_server() is None:
        # To start a server takes longer than to see that there is nothing to do.
        if (idle := _idle(requests)) is not None:
            print_summary(idle, json=json)
            return 0
        has_work = True
    with contextlib.ExitStack() as ahead:
        # Its workers are not started for a run that may find nothing to do.
        begins = has_work and not settings.dry_run
        beside = partial(_start_ahead, settings, ahead) if begins else None
        return _run(settings, beside or importing("flows.extract.flow"), json=json)


def _idle(requests: dict[str, Settings]) -> Summary | Summaries | None:
    """The summary of a run that has nothing to do in any of its stores; None if there may be work."""
    from flows.extract.setup import run_idle
    from flows.extract.summary import Summaries

    idle = {}
    for name, each in requests.items():
        if (summary := run_idle(each)) is None:
            return None
        idle[name] = summary
    return Summaries(stores=idle) if len(idle) > 1 else summary


def require_model(settings: Settings) -> None:
    """Raise what is wrong with a model of the user's before a server is started for the run."""
    from flows.extract.own_model import is_own_model

    if settings.backbone and is_own_model(settings.backbone):
        import store
        from flows.extract.request import stage_of

        existing = store.open(settings.store) if store.exists(settings.store) else None
        stage_of(settings, existing)


def _start_ahead(settings: Settings, until: contextlib.ExitStack, api_url: str) -> None:
    from flows.extract.ahead import start

    start(settings, api_url, until)


def _run(settings: Settings, beside: Callable[[str], object], *, json: bool) -> int:
    with prefect_server(beside=beside):
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


def print_summary(summary: Summary | Summaries, *, json: bool = False) -> None:
    """The run in numbers: a headline, where the time went, what failed, the next step."""
    if json:
        print_json(summary.to_dict())
        return
    from flows.extract.summary import each_of

    for each in each_of(summary):
        _print_store(each)


def _print_store(summary: Summary) -> None:
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
        suggest(*_next_words(summary))


def _next_words(summary: Summary) -> tuple[str, ...]:
    """The command that comes next: clips without labels can only be trained on by annotations."""
    store = ("--store", summary.store)
    if summary.classes:
        return ("train", *store, "--head", "gru")
    if summary.files:
        return ("train", *store, "--head", "segmenter", "--annotations", "FILE")
    return ("report", *store)
