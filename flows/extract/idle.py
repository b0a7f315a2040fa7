"""A run that finds nothing to do, without Prefect: no server is started for it."""

from __future__ import annotations

import os
import stat
import time
from dataclasses import replace

import store
from flows.extract.plan import make_plan
from flows.extract.request import Request
from flows.extract.setup import count_rows, find_clips, prepare
from flows.extract.specs import require_batch, stage_of
from flows.extract.summary import Summary
from flows.settings import FeaturesSettings
from pipeline.features.files import answered
from store import StoreBusy, Writer


def run_idle(settings: FeaturesSettings) -> Summary | None:
    """The summary of a run that has nothing to do; None if there may be work for the flow.

    Only for folders of clips and stores on this machine: to list others twice may take minutes.
    Raises what the flow raises for clips, a store or settings that do not match.
    """
    request, started = Request.of(settings), time.monotonic()
    if settings.dry_run or "://" in request.url or not _is_folder(str(request.clips)):
        return None
    if not store.exists(request.url):
        return None
    existing = store.open(request.url)
    spec, stage, weights = stage_of(settings, existing, demo=request.clips.is_demo)
    require_batch(existing, settings)
    try:
        writer = Writer.acquire(request.url, owner="features", lease=request.lease)
    except StoreBusy:
        return None
    with writer:
        listed = find_clips(request.clips)
        # Clips whose time has changed count as work: the flow compares their bytes.
        plan = make_plan(listed[0], writer.table, wanted=listed[1], retry=request.retry)
        parts = (plan.new, plan.make, plan.gone, plan.returned, plan.stale, plan.unknown)
        if any(map(len, parts)) or writer.suspects:
            return None
        summary = prepare(request, listed, writer, spec, stage, weights).summary
        return replace(summary, rows=count_rows(writer.table), seconds=time.monotonic() - started)


def _is_folder(path: str) -> bool:
    """Whether it is a folder that answers; what the file system has against it the flow says."""
    try:
        return stat.S_ISDIR(answered(path, lambda: os.stat(path)).st_mode)
    except (OSError, ValueError):
        return False
