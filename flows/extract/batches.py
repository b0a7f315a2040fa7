"""One batch of clips as a Prefect task: it runs on a Dask worker and writes one whole chunk."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import MissingContextError

import store
from flows.extract.shared_clips import SharedClips
from flows.extract.values import Batch, BatchResult, Clip
from pipeline.features.catalog.remote import is_remote
from pipeline.features.decoding.values import FACTS
from pipeline.features.files import sha256_if_readable
from pipeline.features.joined_stage import JoinedStage
from pipeline.features.stage import FirstStage, Stage

__all__ = ["Batch", "BatchResult", "Clip", "extract_batch", "topic"]

_LOGGED_FAILURES = 20


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
    parts = batch.parts
    loaded = first_stages(batch.stages or (batch.stage,))
    before = [loaded.extractor.seconds(part.store) for part in parts]
    kept = [_kept_rows(part) for part in parts]
    shared = SharedClips.of(parts)
    report = _reporter(batch)
    results = loaded.extractor.extract_streams(
        shared.sources,
        wanted=shared.stores,
        on_clip=lambda its: report(*shared.first[_index_of(its)], its),
        stop=stop_event(batch.run),
        into=shared.rooms([chunk for chunk, _ in kept]),
    )
    made = []
    for number, part in enumerate(parts):
        its = [results[at][part.store] for at in shared.places[number]]
        chunk, damaged = kept[number]
        made.append(
            replace(
                _written(part, its, chunk),
                damaged=damaged,
                worker_seconds=(before[number], loaded.extractor.seconds(part.store)),
                software=_software(loaded.backbones[part.store]),
                counted=shared.counted(number),
            )
        )
        _log(part, its)
    return replace(made[0], beside=tuple(made[1:]))


def _written(batch: Batch, results: list[Any], chunk: np.ndarray) -> BatchResult:
    """Write one store's chunk; returns what the flow commits of it."""
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
    return BatchResult(
        number=batch.number,
        store=batch.store,
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
        damaged=[],
        worker=_worker_name(),
        worker_seconds=({}, {}),
        write_s=time.perf_counter() - extracted,
    )


def _index_of(results: dict[int, Any]) -> int:
    """The place of a clip in its call."""
    return int(next(iter(results.values())).index)


def _software(backbone: Any) -> dict[str, str]:
    return dict(backbone.software) | {"engine": backbone.engine}


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
    pairs = zip(batch.clips, results, strict=True)
    failed = [(clip, result) for clip, result in pairs if result.status == "failed"]
    for clip, result in failed[:_LOGGED_FAILURES]:
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

    def report(number: int, row: int, results: dict[int, Any]) -> None:
        result = results[number]
        if worker is not None and result.status != "stopped":
            frames = int(result.mask.sum())
            event = {"store": number, "row": row, "status": result.status, "frames": frames}
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
_loaded: dict[str, FirstStage | JoinedStage] = {}
_stops: dict[str, threading.Event] = {}


def first_stages(stages: tuple[Stage, ...]) -> FirstStage | JoinedStage:
    """The process's first stages of these kinds: loaded at the first batch, kept for the others."""
    with _lock:
        # Why its precision was chosen makes it no other: the one that was loaded ahead may not know.
        key = "".join(repr(replace(stage, precision="")) for stage in stages)
        if key not in _loaded:
            threads = int(os.environ.get("PIXELS_ONCE_THREADS", "0"))
            alone = len(stages) == 1
            _loaded[key] = (
                FirstStage.load(stages[0], threads=threads)
                if alone
                else JoinedStage.load(stages, threads=threads)
            )
        return _loaded[key]


def first_stage(stage: Stage) -> FirstStage | JoinedStage:
    """The process's first stage of this kind."""
    return first_stages((stage,))


def load_ahead(stages: tuple[Stage, ...]) -> None:
    """Begin to load first stages; a batch that asks for them waits, or meets their error."""

    def load() -> None:
        with contextlib.suppress(Exception):
            first_stages(stages)

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
