"""The extraction of a run: its batches on a Dask cluster, in passes until no chunk is disturbed."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from prefect.settings import PREFECT_API_URL
from prefect_dask import DaskTaskRunner

from flows.extract.artifacts import ProgressArtifact, publish_link
from flows.extract.cluster import dask_cluster
from flows.extract.commit import Totals
from flows.extract.cutting import BatchCutter
from flows.extract.joint import JointBatches
from flows.extract.loop import BatchLoop
from flows.extract.named_cluster import LostJobs
from flows.extract.progress import Curve, Progress
from flows.extract.setup import Target
from flows.extract.summary import Summary, stage_rows
from flows.extract.worker_checks import Check, readable_sample
from flows.extract.workforce import Workforce
from flows.server.run_page import RunPage
from flows.server.settling import watched_for_cancelling
from flows.settings.features import FeaturesSettings
from pipeline.features.measured import Rate, engine_name, keep_rate
from pipeline.features.stage import Stage
from store import PENDING, Writer

_PASSES = 3  # a chunk that a late writer has damaged is extracted again, but not without end


def extract(targets: Sequence[Target], settings: FeaturesSettings, page: RunPage) -> list[Summary]:
    """Extract the rows of each store, and check what a dead worker may have disturbed.

    settings: of the whole run. Raises as `BatchLoop.run`.
    """
    began, server = time.monotonic(), PREFECT_API_URL.value()
    writers = [target.writer for target in targets]
    stages = tuple(target.asked.stage for target in targets)
    most = max((target.prepared for target in targets), key=lambda its: len(its.rows))
    paths = [most.path_of(int(row)) for row in most.rows]
    artifact = ProgressArtifact(page, settings.store)
    curve = Curve()

    def on_change(fraction: float, text: str) -> None:
        artifact.update(fraction, f"{progress.done:,} of {progress.total:,} clips · {text}")
        curve.add(time.monotonic() - began, progress.frames)

    with (
        Progress(len(most.rows), on_change=on_change) as progress,
        dask_cluster(settings) as arguments,
        DaskTaskRunner(**arguments) as runner,
        Workforce(
            runner.client,
            Check(
                store_url=writers[0].url,
                clips=readable_sample(paths),
                api_url=server or "",
                further_urls=tuple(writer.url for writer in writers[1:]),
            ),
            wait_s=settings.worker_wait,
            say=progress.note,
            jobs=LostJobs(arguments.get("cluster"), done=lambda: progress.done, say=progress.note),
        ) as workforce,
        watched_for_cancelling() as cancelled,
    ):
        dashboard = publish_link(page, settings.store, runner.client)
        run = secrets.token_hex(8)

        def run_rows(rows: Sequence[np.ndarray]) -> list[Totals]:
            loop = BatchLoop(
                writers=writers,
                runner=runner,
                workforce=workforce,
                progress=progress,
                run_id=run,
                gpu=settings.gpu,
                cancelled=cancelled,
            )
            batches = _batches(targets, stages, rows, run, progress)
            return loop.run(iter(batches), len(batches))

        rows = [target.prepared.rows for target in targets]
        totals = _in_passes(rows, writers, run_rows, progress.note)
        on_change(min(1.0, progress.done / max(1, progress.total)), progress.text)
        curve.add(time.monotonic() - began, progress.frames, last=True)
    shared: dict[str, Any] = {"throughput": curve.points, "dashboard": dashboard}
    return [
        _summary(target, its, shared, alone=len(targets) == 1)
        for target, its in zip(targets, totals, strict=True)
    ]


def _batches(
    targets: Sequence[Target],
    stages: tuple[Stage, ...],
    rows: Sequence[np.ndarray],
    run: str,
    progress: Progress,
) -> JointBatches:
    """The batches of a pass. The first pass says how many clips are read."""
    cutters = [
        BatchCutter(
            target.writer,
            target.asked.stage,
            target.prepared.path_of,
            run,
            hashes=target.prepared.hashes,
        )
        for target in targets
    ]
    ids = [target.writer.column("video_id") for target in targets]
    batches = JointBatches(cutters, stages, rows, ids)
    if not progress.done:
        progress.total = batches.clips
    return batches


def _summary(target: Target, totals: Totals, shared: dict[str, Any], *, alone: bool) -> Summary:
    """What came of one store. alone: whether the workers computed nothing for another."""
    asked, writer = target.asked, target.writer
    seconds = {**totals.stage_seconds, "write": totals.write_s, "commit": totals.commit_s}
    if alone:  # else the rate is that of all backbones together
        _keep_rates(writer, asked.stage, asked.settings, totals, seconds)
    known: dict[str, Any] = {
        "outcome": "interrupted" if totals.stopped_by else "done",
        "left": int((writer.column("status") == PENDING).sum()),
        "warnings": dict(totals.warnings),
        "stage_seconds": {name: round(value, 3) for name, value, _ in stage_rows(seconds)},
        "engine": totals.software.get("engine", ""),
    }
    return replace(target.prepared.summary, **totals.facts() | known | shared)


def _keep_rates(
    writer: Writer,
    stage: Stage,
    settings: FeaturesSettings,
    totals: Totals,
    seconds: Mapping[str, float],
) -> None:
    """Keep what the next dry run and `doctor` go by: the rate without the start of the workers."""
    if busy := seconds.get("cnn", 0.0) + seconds.get("waiting", 0.0):
        rate = round(totals.frames / busy, 2)
        writer.set_attributes(last_run={"frames_per_second": rate})
        if not (settings.scheduler or settings.cluster):
            _keep_rate(stage, totals, rate)


def _keep_rate(stage: Stage, totals: Totals, frames_per_second: float) -> None:
    """Keep what this machine's engine was measured at in this run, for `doctor`."""
    versions = {name: text for name, text in totals.software.items() if name != "engine"}
    keep_rate(
        Rate(
            engine=engine_name(totals.software),
            backbone=stage.spec["backbone"],
            precision=stage.spec["precision"],
            frames=totals.frames,
            frames_per_second=frames_per_second,
            software=versions,
        )
    )


def _in_passes(
    rows: Sequence[np.ndarray],
    writers: Sequence[Writer],
    run_rows: Callable[[Sequence[np.ndarray]], list[Totals]],
    note: Callable[[str], None],
) -> list[Totals]:
    """Run these rows of each store, then those of chunks that do not match their digests.

    Returns all results, by store.
    """
    totals = [Totals() for _ in writers]
    for _ in range(_PASSES):
        damaged: list[list[int]] = [[] for _ in writers]
        if any(map(len, rows)):
            results = run_rows(rows)
            damaged = [its.damaged for its in results]
            for total, its in zip(totals, results, strict=True):
                total.add(its)
        # Asked to stop, too: what a late writer has disturbed must not stay ready.
        rows = [_unmade(*pair) for pair in zip(writers, damaged, strict=True)]
        if totals[0].stopped_by or not any(map(len, rows)):
            break
        note(f"{sum(map(len, rows))} rows do not match their digest and are made again")
    return totals


def _unmade(writer: Writer, damaged: list[int]) -> np.ndarray:
    """The rows of a store that are to be made again: these, and those that a late writer disturbed."""
    found = writer.check_batches(writer.suspects)
    rows = writer.unmake(np.union1d(found, np.array(damaged, dtype=np.int64)))
    writer.flush()
    return rows
