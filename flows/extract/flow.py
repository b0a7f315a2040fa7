"""The flow of stage one: discover, plan, extract, commit, summarise."""

from __future__ import annotations

import platform
import time
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.states import Cancelled, Completed

import store
from flows.extract.artifacts import publish_summary
from flows.extract.request import checked, clips_of, require_batch, stage_of
from flows.extract.setup import dry_run, find_clips, finished, prepare
from flows.extract.summary import Summary, require_few_failed, require_reached
from flows.server.lifetime import RunCancelled
from flows.server.run_page import RunPage
from flows.server.settling import end_open_tasks, is_scheduled, run_page
from flows.settings.features import FeaturesSettings
from pipeline.engine import version
from pipeline.features.backbones import family_of
from pipeline.homes import free_space
from pipeline.spec import Spec
from store import Layout, StoreBusy, Writer


@flow(name="features", flow_run_name="features → {settings.store}", persist_result=False)
def features(settings: FeaturesSettings) -> Summary:
    """Extract features of all clips that the store lacks; resume, and report what was done.

    Raises `ConfigError` for a user's mistake, `store.StoreError` where the store cannot be used,
    `RunFailed` after a run that is over `max_failed` or that reached none of its clips.
    """
    with run_page() as page:
        settings = checked(settings)
        ended = _features(settings, page)
    if not isinstance(ended, Summary) or ended.outcome == "dry run":
        return ended  # type: ignore[no-any-return]  # a flow that returns a state ends in it
    summary = ended
    get_run_logger().info(summary.headline())
    if summary.stopped_by and is_scheduled():
        return Cancelled(  # type: ignore[return-value]
            message=f"stopped by {summary.stopped_by}; clips left for the next run: {summary.left}"
        )
    require_reached(summary)
    require_few_failed(summary, settings.max_failed)
    return summary


def _features(settings: FeaturesSettings, page: RunPage) -> Any:
    """The summary, or the state in which the run ends."""
    logger, started, url = get_run_logger(), time.monotonic(), settings.store
    existing = store.open(url) if store.exists(url) else None
    listed = None
    if existing is None or settings.dry_run:
        table = existing.table() if existing is not None else None
        listed = find_clips(settings, existing, table)
    spec, stage, weights = stage_of(settings, existing)
    if existing is not None:
        require_batch(existing, settings)
    if settings.dry_run and listed is not None:
        return dry_run(settings, listed, existing, spec)
    try:
        if existing is None and listed is not None:
            _require_room(settings, spec, int(listed[1].sum()))
            _create(settings, spec)
        wait_s = float("inf") if settings.if_busy == "wait" else 0.0
        writer = Writer.acquire(url, owner="features", lease=settings.lease, wait_s=wait_s)
    except StoreBusy as busy:
        if settings.if_busy != "skip":
            raise
        logger.warning("skipped: %s", busy)
        return Completed(
            name="Skipped",
            message=f"another run is going on: {busy}",
            data=Summary(store=url, outcome="skipped", clips=0),
        )
    with writer:
        if listed is None or len(writer):
            # Only now: a listing from before the lease was ours would call the clips gone that
            # another run has found and stored since.
            listed = find_clips(settings, writer, writer.table)
        logger.info("%d clips under %s", len(listed[0]), clips_of(settings))
        prepared = prepare(settings, listed, writer, spec, stage, weights)
        logger.info("%r", prepared.plan)
        if unknown := len(prepared.plan.unknown):
            logger.warning("%d clips did not say whether they changed: their rows stay", unknown)
        summary = prepared.summary
        if len(prepared.rows) or writer.suspects:
            # Only where there is something to do: Dask's import takes a second.
            from flows.extract.passes import extract

            _require_room(settings, spec, len(prepared.rows))
            try:
                with prepared.hashes:
                    summary = extract(prepared, writer, stage, settings, page)
            except RunCancelled:
                end_open_tasks()
                return Cancelled(message=f"cancelled; {url} is whole, the next run goes on")
        summary = finished(summary, writer, started)
    publish_summary(page, summary)
    return summary


def _create(settings: FeaturesSettings, spec: Spec) -> None:
    steps, shape, dtype = spec.sampling.steps, spec.shape, spec.dtype
    store.create(
        settings.store,
        layout=Layout(steps=steps, shape=shape, dtype=dtype, batch=settings.batch),
        spec=spec.to_dict(),
        fingerprint=spec.fingerprint,
        software=software(),
        lease=settings.lease,
    )


def _require_room(settings: FeaturesSettings, spec: Spec, clips: int) -> None:
    """Raise `store.StoreUnwritable` if the disk cannot hold so many, `ConfigError` without an engine."""
    url = settings.store
    if "://" not in url or url.startswith("file://"):  # object stores have no limit
        folder, free = free_space(Path(url.removeprefix("file://")).absolute())
        needed = clips * spec.row_bytes
        if needed > free:
            raise store.StoreUnwritable(
                f"{url} needs about {needed / 2**20:,.0f} MiB and {folder} has "
                f"{free / 2**20:,.0f} MiB free: free some space, or put STORE on another disk"
            )
    if not settings.scheduler:  # the workers are on this machine: before they start
        family_of(spec.backbone).require(settings.engine)


def software() -> dict[str, str]:
    """Versions of what writes a store."""
    names = ("pixels-once", "keras", "numpy", "opencv-python-headless", "av", "zarr")
    versions = {"python": platform.python_version()} | {name: version(name) for name in names}
    return {name: text for name, text in versions.items() if text}
