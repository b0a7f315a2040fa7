"""The flow of stage one: discover, plan, extract, commit, summarise; into one store, or several."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any

from prefect import flow, get_run_logger
from prefect.states import Cancelled, Completed

import store
from flows.extract.artifacts import publish_summary
from flows.extract.creation import Asked, hold, require_room
from flows.extract.each_store import each_store
from flows.extract.listing import list_clips, listings_for
from flows.extract.request import checked, clips_of, require_batch, stage_of
from flows.extract.setup import (
    Target,
    dry_run,
    finished,
    prepare_all,
)
from flows.extract.summary import (
    Summaries,
    Summary,
    each_of,
    require_few_failed,
    require_reached,
)
from flows.server.lifetime import RunCancelled
from flows.server.run_page import RunPage
from flows.server.settling import end_open_tasks, is_scheduled, run_page
from flows.settings.features import FeaturesSettings
from store import StoreBusy


@flow(name="features", flow_run_name="features → {settings.store}", persist_result=False)
def features(settings: FeaturesSettings) -> Summary | Summaries:
    """Extract features of all clips that the store lacks; resume, and report what was done.

    Several backbones fill a store each, from one reading of every clip.
    Raises `ConfigError` for a user's mistake, `store.StoreError` where a store cannot be used,
    `RunFailed` after a run that is over `max_failed` or that reached none of its clips.
    """
    with run_page() as page:
        settings = checked(settings)
        ended = _features(settings, page)
    if not isinstance(ended, Summary | Summaries) or ended.outcome == "dry run":
        return ended  # type: ignore[no-any-return]  # a flow that returns a state ends in it
    for each in each_of(ended):
        get_run_logger().info(each.headline())
    if ended.stopped_by and is_scheduled():
        return Cancelled(  # type: ignore[return-value]
            message=f"stopped by {ended.stopped_by}; clips left for the next run: {ended.left}"
        )
    for each in each_of(ended):
        require_reached(each, ended)
    for each in each_of(ended):
        require_few_failed(each, settings.max_failed, ended)
    return ended


def _features(settings: FeaturesSettings, page: RunPage) -> Any:
    """The summary, or the state in which the run ends."""
    logger, started, requests = get_run_logger(), time.monotonic(), each_store(settings)
    each_settings = list(requests.values())
    opened = [store.open(r.store) if store.exists(r.store) else None for r in each_settings]
    listed = None
    if settings.dry_run or None in opened:
        listed = listings_for(each_settings, list_clips(settings), opened)
    asked = [_asked(*pair) for pair in zip(each_settings, opened, strict=True)]
    if settings.dry_run and listed is not None:
        each = zip(each_settings, listed, asked, strict=True)
        plans = [dry_run(its, clips, one.existing, one.spec) for its, clips, one in each]
        return _together(requests, plans)
    with contextlib.ExitStack() as held:
        try:
            clips = [0] * len(asked) if listed is None else [int(of[1].sum()) for of in listed]
            writers = hold(asked, clips, held)
        except StoreBusy as busy:
            if settings.if_busy != "skip":
                raise
            logger.warning("skipped: %s", busy)
            skipped = [Summary(store=r.store, outcome="skipped", clips=0) for r in each_settings]
            return Completed(
                name="Skipped",
                message=f"another run is going on: {busy}",
                data=_together(requests, skipped),
            )
        if listed is None or any(map(len, writers)):
            # Only now: a listing from before the leases were ours would call the clips gone that
            # another run has found and stored since.
            listed = listings_for(each_settings, list_clips(settings), writers)
        logger.info("%d clips under %s", len(listed[0][0]), clips_of(settings))
        targets = prepare_all(asked, writers, listed)
        for plan in (each.prepared.plan for each in targets):
            logger.info("%r", plan)
            if unknown := len(plan.unknown):
                logger.warning(
                    "%d clips did not say whether they changed: their rows stay", unknown
                )
        try:
            extracted = _extracted(targets, settings, page)
        except RunCancelled:
            end_open_tasks()
            names = ", ".join(each.store for each in each_settings)
            return Cancelled(message=f"cancelled; {names} is whole, the next run goes on")
        summaries = [
            finished(summary, each.writer, started)
            for summary, each in zip(extracted, targets, strict=True)
        ]
    for summary in summaries:
        publish_summary(page, summary)
    return _together(requests, summaries)


def _asked(settings: FeaturesSettings, existing: Any | None) -> Asked:
    spec, stage, weights = stage_of(settings, existing)
    if existing is not None:
        require_batch(existing, settings)
    return Asked(settings=settings, existing=existing, spec=spec, stage=stage, weights=weights)


def _extracted(
    targets: Sequence[Target], settings: FeaturesSettings, page: RunPage
) -> list[Summary]:
    """The summary of each store, once those that lack something are filled. Raises `RunCancelled`."""
    summaries = {id(each): each.prepared.summary for each in targets}
    lacking = [each for each in targets if each.has_work]
    if lacking:
        # Only where there is something to do: Dask's import takes a second.
        from flows.extract.passes import extract

        require_room([(each.asked, len(each.prepared.rows)) for each in lacking])
        with lacking[0].prepared.hashes:
            extracted = extract(lacking, settings, page)
        summaries |= dict(zip(map(id, lacking), extracted, strict=True))
    return [summaries[id(each)] for each in targets]


def _together(
    requests: dict[str, FeaturesSettings], summaries: Sequence[Summary]
) -> Summary | Summaries:
    """A run's result: of one store its summary."""
    if len(summaries) == 1:
        return summaries[0]
    return Summaries(stores=dict(zip(requests, summaries, strict=True)))
