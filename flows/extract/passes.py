"""The extraction of a run: its batches on a Dask cluster, in passes until no chunk is disturbed."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from prefect.settings import PREFECT_API_URL
from prefect_dask import DaskTaskRunner

from flows.extract.artifacts import ProgressArtifact, publish_link
from flows.extract.cluster import dask_cluster
from flows.extract.commit import Totals
from flows.extract.dispatch import batches_of
from flows.extract.loop import BatchLoop
from flows.extract.progress import Progress
from flows.extract.setup import Prepared
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


def extract(
    prepared: Prepared, writer: Writer, stage: Stage, settings: FeaturesSettings, page: RunPage
) -> Summary:
    """Extract the rows, and check what a dead worker may have disturbed. Raises as `BatchLoop.run`."""
    began, url = time.monotonic(), prepared.summary.store
    paths, server = [prepared.path_of(int(row)) for row in prepared.rows], PREFECT_API_URL.value()
    artifact = ProgressArtifact(page, url)
    curve: list[tuple[float, int]] = [(0.0, 0)]

    def on_change(fraction: float, text: str) -> None:
        artifact.update(fraction, text)
        curve.append((round(time.monotonic() - began, 2), progress.frames))

    with (
        Progress(len(prepared.rows), on_change=on_change) as progress,
        dask_cluster(settings) as arguments,
        DaskTaskRunner(**arguments) as runner,
        Workforce(
            runner.client,
            Check(store_url=writer.url, clips=readable_sample(paths), api_url=server or ""),
            wait_s=settings.worker_wait,
            say=progress.note,
        ) as workforce,
        watched_for_cancelling() as cancelled,
    ):
        dashboard = publish_link(page, url, runner.client)
        run = secrets.token_hex(8)

        def run_rows(rows: np.ndarray) -> Totals:
            loop = BatchLoop(
                writer=writer,
                runner=runner,
                workforce=workforce,
                progress=progress,
                run_id=run,
                gpu=settings.gpu,
                cancelled=cancelled,
            )
            batches = batches_of(
                rows.tolist(), writer, stage, prepared.path_of, run, hashes=prepared.hashes
            )
            return loop.run(batches)

        totals = _in_passes(prepared.rows, writer, run_rows, progress.note)
        on_change(min(1.0, progress.done / max(1, progress.total)), progress.text)
    seconds = {**totals.stage_seconds, "write": totals.write_s, "commit": totals.commit_s}
    _keep_rates(writer, stage, settings, totals, seconds)
    known: dict[str, Any] = {
        "outcome": "interrupted" if totals.stopped_by else "done",
        "left": int((writer.column("status") == PENDING).sum()),
        "warnings": dict(totals.warnings),
        "stage_seconds": {name: round(value, 3) for name, value, _ in stage_rows(seconds)},
        "engine": totals.software.get("engine", ""),
        "throughput": curve,
        "dashboard": dashboard,
    }
    return replace(prepared.summary, **totals.facts() | known)


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
    rows: np.ndarray,
    writer: Writer,
    run_rows: Callable[[np.ndarray], Totals],
    note: Callable[[str], None],
) -> Totals:
    """Run these rows, then those of chunks that do not match their digests; returns all results."""
    totals = Totals()
    for _ in range(_PASSES):
        damaged: list[int] = []
        if len(rows):
            results = run_rows(rows)
            damaged = results.damaged
            totals.add(results)
        # Asked to stop, too: what a late writer has disturbed must not stay ready.
        rows = np.union1d(writer.check_batches(writer.suspects), np.array(damaged, dtype=np.int64))
        rows = writer.unmake(rows)
        writer.flush()
        if totals.stopped_by or not len(rows):
            break
        note(f"{len(rows)} rows do not match their digest and are made again")
    return totals
