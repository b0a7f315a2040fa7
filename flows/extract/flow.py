"""The flow of stage one: discover, plan, extract, commit, summarise."""

from __future__ import annotations

import platform
import secrets
import shutil
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from prefect import flow, get_run_logger
from prefect.states import Cancelled, Completed

import store
from flows.extract.addresses import require_places
from flows.extract.artifacts import ProgressArtifact, publish_links, publish_summary
from flows.extract.outcomes import require_few_failed, require_reached
from flows.extract.plan import check_retry
from flows.extract.progress import Progress
from flows.extract.setup import (
    DEMO_CLIPS,
    dry_run,
    find_clips,
    plan_run,
    prepare,
    retried_reasons,
)
from flows.extract.specs import stage_of, with_store
from flows.extract.summary import Summary, stage_rows
from flows.server.cancelling import (
    RunCancelled,
    end_open_tasks,
    is_scheduled,
    watched_for_cancelling,
)
from flows.server.run_client import own_run
from flows.server.run_page import RunPage
from flows.server.settling import settle_now
from flows.settings import FeaturesSettings
from flows.settings.resolve import check_settings
from pipeline.engine import version
from pipeline.errors import ConfigError
from pipeline.features.backbones import family_of
from pipeline.features.stage import Stage
from pipeline.spec import Spec
from store import FAILED, GONE, PENDING, READY, Layout, StoreBusy, Writer

_PASSES = 3  # a chunk found damaged by a late writer is made again, but not for ever


@flow(
    name="features",
    flow_run_name="features → {settings.store}",
    validate_parameters=True,
    persist_result=False,
)
def features(settings: FeaturesSettings) -> Summary:
    """Extract features of all clips that the store lacks; resume, and say what was done.

    Raises `ConfigError` for a user's mistake, `store.StoreError` where the store cannot be used,
    `RunFailed` after a run that is over `max_failed` or that reached none of its clips.
    """
    own_run()
    check_settings(settings)
    with RunPage() as page:
        page.tell("the ends of earlier runs", settle_now)
        return _features(settings, page)


def _features(settings: FeaturesSettings, page: RunPage) -> Summary:
    logger = get_run_logger()
    settings = with_store(settings)
    require_places(store_url=settings.store, videos=settings.videos)
    check_retry(retried_reasons(settings))
    started = time.monotonic()
    existing = store.open(settings.store) if store.exists(settings.store) else None
    listed = find_clips(settings) if existing is None or settings.dry_run else None
    spec, stage, weights = stage_of(settings, existing, demo=not settings.videos)
    if existing is not None and existing.batch != settings.batch != FeaturesSettings().batch:
        raise ConfigError(
            f"{settings.store} was made with batch {existing.batch}, not {settings.batch}: "
            "leave --batch out, or use another STORE"
        )
    if settings.dry_run and listed is not None:
        return dry_run(settings, *listed, existing, spec)
    try:
        if existing is None and listed is not None:
            require_backbone(settings, spec)
            _create(settings, spec, int(listed[1].sum()))
        writer = Writer.acquire(
            settings.store,
            owner="features",
            lease=settings.lease,
            wait_s=float("inf") if settings.if_busy == "wait" else 0.0,
        )
    except StoreBusy as busy:
        if settings.if_busy != "skip":
            raise
        logger.warning("skipped: %s", busy)
        skipped = Summary(store=settings.store, outcome="skipped", clips=0)
        # A flow that returns a state ends in it: the run's page says Skipped, not Completed.
        return Completed(  # type: ignore[return-value]
            name="Skipped", message=f"another run is going on: {busy}", data=skipped
        )
    with writer:
        if listed is None or len(writer):
            # Only now: a listing from before the lease was ours would call the clips gone that
            # another run has found and stored since.
            listed = find_clips(settings)
        catalog, wanted = listed
        logger.info("%d clips under %s", len(catalog), settings.videos or "the built-in demo")
        # So that the next run, and `predict`, find the weights without being told.
        writer.set_attributes(first_stage={"weights": stage.weights})
        writer.set_attributes(clips=_absolute(settings.videos or DEMO_CLIPS))  # for `verify`
        if settings.previews:
            writer.keep_previews()
        plan = plan_run(settings, catalog, wanted, writer.table)
        rows, paths = prepare(catalog, plan, writer)
        logger.info("%r", plan)
        if len(plan.unknown):
            logger.warning(
                "%d clips did not say whether they have changed: their rows stay as they are",
                len(plan.unknown),
            )
        summary = Summary(
            store=settings.store,
            outcome="nothing to do",
            clips=len(catalog),
            planned=len(rows),
            gone=len(plan.gone),
            returned=len(plan.returned),
            unknown=len(plan.unknown),
            why=plan.why,
            weights=str(weights),
            fingerprint=spec.fingerprint,
        )
        if len(rows) or writer.suspects:
            require_backbone(settings, spec)
            _check_space(settings.store, len(rows), spec)
            try:
                summary = _extract(settings, page, writer, rows, paths, stage, summary)
            except RunCancelled:
                end_open_tasks()
                return Cancelled(  # type: ignore[return-value]
                    message=f"cancelled; {settings.store} is whole, the next run goes on"
                )
        table = writer.table
        summary = replace(
            summary,
            rows=_counts(table),
            seconds=time.monotonic() - started,
            reasons=dict(Counter(f["reason"] for f in summary.failures)),
        )
    publish_summary(page, summary, summary.dashboard)
    logger.info(summary.headline())
    if summary.stopped_by and is_scheduled():
        return Cancelled(  # type: ignore[return-value]
            message=f"stopped by {summary.stopped_by}; clips left for the next run: {summary.left}"
        )
    require_reached(summary)
    require_few_failed(summary, settings.max_failed)
    return summary


def _absolute(videos: str) -> str:
    return videos if "://" in videos else str(Path(videos).absolute())


def _extract(
    settings: FeaturesSettings,
    page: RunPage,
    writer: Writer,
    rows: np.ndarray,
    paths: Any,
    stage: Stage,
    summary: Summary,
) -> Summary:
    """Run the batches on Dask, check what a dead run or worker may have disturbed, and add up."""
    from prefect_dask import DaskTaskRunner

    from flows.extract.cluster import dask_cluster
    from flows.extract.commit import Extraction
    from flows.extract.dispatch import batches_of
    from flows.extract.extracted import Extracted
    from flows.extract.worker_checks import check_of
    from flows.extract.workforce import Workforce

    artifact = ProgressArtifact(page, settings.store)
    run = secrets.token_hex(8)
    total = Extracted()
    began = time.monotonic()
    curve: list[tuple[float, int]] = [(0.0, 0)]

    def tell(fraction: float, text: str) -> None:
        artifact.update(fraction, text)
        curve.append((round(time.monotonic() - began, 2), progress.frames))

    with (
        Progress(len(rows), on_change=tell) as progress,
        dask_cluster(settings) as arguments,
        DaskTaskRunner(**arguments) as runner,
        Workforce(
            runner.client,
            check_of(writer.url, [paths(int(row)) for row in rows]),
            wait_s=settings.worker_wait,
            say=progress.note,
        ) as workforce,
        watched_for_cancelling() as cancelled,
    ):
        dashboard = publish_links(page, settings.store, runner.client)
        for _ in range(_PASSES):
            if len(rows):
                batches = batches_of(rows.tolist(), writer, stage, paths, run)
                extraction = Extraction(
                    writer,
                    runner,
                    workforce,
                    progress,
                    run=run,
                    gpu=settings.gpu,
                    cancelled=cancelled,
                )
                total.add(extraction.run(batches))
            again = np.array(total.damaged, dtype=np.int64)
            # Asked to stop, too: what a late writer has disturbed must not stay ready.
            rows = np.union1d(writer.check_batches(writer.suspects), again)
            rows = writer.unmake(rows)
            writer.flush()
            if total.stopped_by or not len(rows):
                break
            progress.note(f"{len(rows)} rows do not match their digest and are made again")
            total.damaged = []
        tell(min(1.0, progress.done / max(1, progress.total)), progress.text)
    seconds = {**total.stage_seconds, "write": total.write_s, "commit": total.commit_s}
    busy = seconds.get("cnn", 0.0) + seconds.get("waiting", 0.0)
    if busy:
        # What the next dry run goes by: the rate without the start of the workers.
        writer.set_attributes(last_run={"frames_per_second": round(total.frames / busy, 2)})
    left = int((writer.column("status") == PENDING).sum())
    return replace(
        summary,
        outcome="interrupted" if total.stopped_by else "done",
        stopped_by=total.stopped_by,
        ready=total.ready,
        failed=total.failed,
        left=left,
        frames=total.frames,
        failures=total.failures,
        warnings=dict(total.warnings),
        stage_seconds={name: round(value, 3) for name, value, _ in stage_rows(seconds)},
        engine=total.software.get("engine", ""),
        throughput=curve,
        dashboard=dashboard,
    )


def _create(settings: FeaturesSettings, spec: Spec, clips: int) -> None:
    _check_space(settings.store, clips, spec)
    store.create(
        settings.store,
        layout=Layout(
            steps=spec.sampling.steps, shape=spec.shape, dtype=spec.dtype, batch=settings.batch
        ),
        spec=spec.to_dict(),
        fingerprint=spec.fingerprint,
        software=software(),
        lease=settings.lease,
    )


def require_backbone(settings: FeaturesSettings, spec: Spec) -> None:
    """Refuse before the workers start what they could not load, where they are on this machine."""
    if not settings.scheduler:
        family_of(spec.backbone).require(settings.engine)


def _check_space(url: str, clips: int, spec: Spec) -> None:
    """Refuse to begin what the disk cannot hold. Object stores have no such limit."""
    if "://" in url and not url.startswith("file://"):
        return
    folder = Path(url.removeprefix("file://")).absolute()
    while not folder.exists():
        folder = folder.parent
    needed = clips * spec.row_bytes
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise store.StoreUnwritable(
            f"{url} needs about {needed / 2**20:,.0f} MiB and {folder} has {free / 2**20:,.0f} MiB "
            "free: free some space, or put STORE on another disk"
        )


def software() -> dict[str, str]:
    """Versions of what writes a store."""
    names = ("pixels-once", "keras", "numpy", "opencv-python-headless", "av", "zarr")
    versions = {"python": platform.python_version()} | {name: version(name) for name in names}
    return {name: text for name, text in versions.items() if text}


def _counts(table: pd.DataFrame) -> dict[str, int]:
    names = {PENDING: "pending", READY: "ready", FAILED: "failed", GONE: "gone"}
    counts = Counter(table["status"].tolist())
    return {name: counts.get(code, 0) for code, name in names.items()}
