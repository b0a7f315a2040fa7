"""One batch of clips as a Prefect task: it runs on a Dask worker and writes one whole chunk."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import MissingContextError

import store
from pipeline.features.catalog.remote import is_remote
from pipeline.features.decoding.values import FACTS, ClipSource
from pipeline.features.files import sha256_if_readable
from pipeline.features.stage import FirstStage, Stage
from pipeline.spans import WHOLE, Span

_LOGGED_FAILURES = 20
_NAMED = 60  # characters of a clip's id in a batch's name


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """A clip to extract: its row in the store, its id, where to read it, and how large the file is.

    span: the part of the file that it is. sha256: of the file, where the run has taken it already.
    """

    row: int
    id: str
    path: str
    size_bytes: int
    span: Span = WHOLE
    sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The clips of one chunk to extract, and the digests of the rows that stay.

    run: names the run to its workers · token: of the lease, None where the run holds none.
    """

    number: int
    url: str
    first_row: int
    rows: int
    clips: tuple[Clip, ...]
    kept: dict[int, int]
    run: str
    token: str | None
    stage: Stage
    attempt: int = 0

    @property
    def name(self) -> str:
        """What the Prefect UI and the log show, e.g. `batch 12 · fight/a.mp4 and 63 more`."""
        first, others = self.clips[0].id, len(self.clips) - 1
        if len(first) > _NAMED:
            first = f"...{first[-_NAMED:]}"  # the font of the UI's run graph knows no ellipsis
        more = f" and {others} more" if others else ""
        again = f" · attempt {self.attempt + 1}" if self.attempt else ""
        return f"batch {self.number} · {first}{more}{again}"


@dataclass(slots=True, kw_only=True)
class BatchResult:
    """The values that the flow commits: one entry per extracted clip, in the order of `rows`.

    mask, frame_index, timestamp: (clips, steps); digests of every row of the chunk from `first_row`;
    damaged: rows that were to be kept and whose digest did not match; worker_seconds: what the
    worker's process had spent by stage before and after this batch.
    """

    number: int
    first_row: int
    rows: np.ndarray
    status: list[str]
    reason: list[str]
    detail: list[str]
    mask: np.ndarray
    frame_index: np.ndarray
    timestamp: np.ndarray
    columns: dict[str, list[Any]]
    digests: np.ndarray | None
    damaged: list[int]
    worker: str
    worker_seconds: tuple[dict[str, float], dict[str, float]]
    write_s: float
    software: dict[str, str] = field(default_factory=dict)


def topic(run: str) -> str:
    """The Dask event topic on which a run's workers report each finished clip."""
    return f"pixels-once-{run}"


@task(
    name="batch",
    task_run_name="{batch.name}",
    retries=0,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def extract_batch(batch: Batch) -> BatchResult:
    """Extract the batch's clips and write its chunk whole; kept rows are checked and written back.

    Raises `store.LeaseLost` if another run has taken the store over, `store.StoreUnwritable` if the
    chunk cannot be written. What is wrong with a clip is in its entry of the result.
    """
    stage = first_stage(batch.stage)
    before = stage.extractor.seconds()
    report = _reporter(batch)
    chunk, damaged = _kept_rows(batch)
    results = stage.extractor.extract(
        [ClipSource(c.path, max(c.size_bytes, 0), c.span, c.sha256) for c in batch.clips],
        on_clip=lambda result: report(batch.clips[result.index].row, result),
        stop=stop_event(batch.run),
        into=[chunk[clip.row - batch.first_row] for clip in batch.clips],
    )
    extracted = time.perf_counter()
    hashes = [_hash_of(*pair) for pair in zip(batch.clips, results, strict=True)]
    digests = None
    if any(result.status != "stopped" for result in results):
        if batch.stage.previews:
            # Before the features: a ready row has its pictures.
            pairs = zip(batch.clips, results, strict=True)
            pictures = {clip.row: result.previews for clip, result in pairs}
            store.write_previews(batch.url, pictures, token=batch.token)
        digests = store.write_batch(batch.url, batch.number, chunk, token=batch.token)
    _log(batch, results)
    return BatchResult(
        number=batch.number,
        first_row=batch.first_row,
        rows=np.array([clip.row for clip in batch.clips]),
        status=[result.status for result in results],
        reason=[result.reason for result in results],
        detail=[result.detail for result in results],
        mask=np.stack([result.mask for result in results]),
        frame_index=np.stack([result.frame_index for result in results]),
        timestamp=np.stack([result.timestamp for result in results]),
        columns={name: [getattr(result, name) for result in results] for name in FACTS}
        | {"sha256": hashes},
        digests=digests,
        damaged=damaged,
        worker=_worker_name(),
        worker_seconds=(before, stage.extractor.seconds()),
        write_s=time.perf_counter() - extracted,
        software=dict(stage.backbone.software) | {"engine": stage.backbone.engine},
    )


def _kept_rows(batch: Batch) -> tuple[np.ndarray, list[int]]:
    """The stored chunk if rows of it are kept, else zeros; and the kept rows that are damaged."""
    spec = batch.stage.spec
    shape = (batch.rows, spec["sampling"]["steps"], *spec["shape"])
    fresh = np.zeros(shape, spec["dtype"])
    if not batch.kept:
        return fresh, []
    try:
        chunk = store.read_batch(batch.url, batch.number)
    except store.StoreDamaged:
        return fresh, sorted(batch.kept)
    at = np.array(list(batch.kept)) - batch.first_row
    sound = store.row_digests(chunk)[at] == np.array(list(batch.kept.values()))
    fresh[at[sound]] = chunk[at[sound]]
    return fresh, (at[~sound] + batch.first_row).tolist()


def _log(batch: Batch, results: list[Any]) -> None:
    try:
        logger = get_run_logger()
    except MissingContextError:  # not in a run: a test calls the task's function directly
        return
    counts = Counter(result.status for result in results)
    outcome = ", ".join(f"{number} {status}" for status, number in sorted(counts.items()))
    logger.info("%s: %s (on %s)", batch.name, outcome, _worker_name())
    for result in [r for r in results if r.status == "failed"][:_LOGGED_FAILURES]:
        clip = batch.clips[result.index]
        logger.warning("%s failed (row %d): %s %s", clip.id, clip.row, result.reason, result.detail)


def _hash_of(clip: Clip, result: Any) -> str:
    """The SHA-256 of a clip's bytes, by what read them."""
    if result.sha256 or result.status != "failed" or is_remote(clip.path):
        return str(result.sha256)
    # Its decoder died of it, or was killed.
    return clip.sha256 or sha256_if_readable(clip.path)


def _reporter(batch: Batch) -> Any:
    """A function that reports a finished clip to the flow, so that its bar moves per clip."""
    worker = _worker()

    def report(row: int, result: Any) -> None:
        if worker is not None and result.status != "stopped":
            frames = int(result.mask.sum())
            event = {"row": row, "status": result.status, "frames": frames}
            worker.log_event(topic(batch.run), event)

    return report


def _worker() -> Any | None:
    """The Dask worker that this is in; None where a test calls the task's function directly."""
    from distributed import get_worker

    with contextlib.suppress(ValueError):
        return get_worker()
    return None


def _worker_name() -> str:
    worker = _worker()
    return f"process {os.getpid()}" if worker is None else str(worker.address)


_lock = threading.Lock()
_loaded: dict[str, FirstStage] = {}
_stops: dict[str, threading.Event] = {}


def first_stage(stage: Stage) -> FirstStage:
    """The process's first stage of this kind: loaded at the first batch, kept for the others."""
    with _lock:
        # Why its precision was chosen makes it no other: the one that was loaded ahead may not know.
        key = repr(replace(stage, precision=""))
        if key not in _loaded:
            threads = int(os.environ.get("PIXELS_ONCE_THREADS", "0"))
            _loaded[key] = FirstStage.load(stage, threads=threads)
        return _loaded[key]


def load_ahead(stage: Stage) -> None:
    """Begin to load a first stage; a batch that asks for it waits, or meets its error."""

    def load() -> None:
        with contextlib.suppress(Exception):
            first_stage(stage)

    threading.Thread(target=load, name="load-ahead", daemon=True).start()


def stop_event(run: str) -> threading.Event:
    """The event that is set when this run wants its clips in hand to be the last."""
    with _lock:
        return _stops.setdefault(run, threading.Event())


def request_stop(run: str) -> None:
    """Ask the batches of this run, in this process, to finish the clips in hand and return."""
    stop_event(run).set()


async def send_logs() -> None:
    """Send what this process has logged to the run's page; to be called once, before it can end.

    Once, because Prefect keeps each service that was ever drained, with its HTTP clients and their
    TLS contexts, until the process ends: after every batch that was 3 MiB a batch.
    """
    from prefect.logging.handlers import APILogHandler

    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(APILogHandler.aflush(), timeout=2)
