"""One batch of clips: what a Dask worker does with it, until its chunk is written whole."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import time
from dataclasses import replace
from typing import Any

import numpy as np

import store
from flows.extract.shared_clips import SharedClips
from flows.extract.values import Batch, BatchResult, Clip
from pipeline.features.catalog.remote import is_remote
from pipeline.features.decoding.values import FACTS
from pipeline.features.files import sha256_if_readable
from pipeline.features.joined_stage import JoinedStage
from pipeline.features.stage import FirstStage, Stage

_REPORT_EVERY_S = 0.1


def topic(run: str) -> str:
    """The Dask event topic on which a run's workers report each finished clip."""
    return f"pixels-once-{run}"


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
    report = Reporter(batch.run)
    results = loaded.extractor.extract_streams(
        shared.sources,
        wanted=shared.stores,
        on_clip=lambda its: _report(report, *shared.first[_index_of(its)], its),
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
    report.flush()
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
        worker=worker_name(),
        worker_seconds=({}, {}),
        write_s=time.perf_counter() - extracted,
    )


def _report(report: Reporter, number: int, row: int, results: dict[int, Any]) -> None:
    """Report a clip by the first store that wants it, whose row it is."""
    report(number, row, results[number])


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


def _hash_of(clip: Clip, result: Any) -> str:
    """The SHA-256 of a clip's bytes, by what read them."""
    if result.sha256 or result.status != "failed" or is_remote(clip.path):
        return str(result.sha256)
    # Its decoder died of it, or was killed.
    return clip.sha256 or sha256_if_readable(clip.path)


class Reporter:
    """Reports finished clips to the flow, so that its bar moves per clip; fast ones several at once.

    Called with the number of a store, a clip's row in it and its result, in any thread.
    """

    def __init__(self, run: str) -> None:
        self._worker, self._topic = this_worker(), topic(run)
        self._lock = threading.Lock()
        self._clips: list[tuple[int, int, str, int]] = []
        self._later: threading.Timer | None = None
        self._sent_at = 0.0

    def __call__(self, number: int, row: int, result: Any) -> None:
        if self._worker is None or result.status == "stopped":
            return
        with self._lock:
            self._clips.append((number, row, result.status, int(result.mask.sum())))
            wait_s = self._sent_at + _REPORT_EVERY_S - time.monotonic()
            if wait_s <= 0:
                self._send()
            elif self._later is None:
                self._later = threading.Timer(wait_s, self.flush)
                self._later.daemon = True
                self._later.start()

    def flush(self) -> None:
        """Send what has not been sent."""
        with self._lock:
            self._send()

    def _send(self) -> None:
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if self._clips:
            assert self._worker is not None
            self._worker.log_event(self._topic, {"clips": self._clips})
        self._clips, self._sent_at = [], time.monotonic()


def this_worker() -> Any | None:
    """The Dask worker that this is in; None where a test calls the task's function directly."""
    from distributed import get_worker

    with contextlib.suppress(ValueError):
        return get_worker()
    return None


def worker_name() -> str:
    worker = this_worker()
    return f"process {os.getpid()}" if worker is None else str(worker.address)


# A decoder that has read a clip waits for the interpreter several times before it is given the next one,
# each time for up to the 5 ms that Python lets a thread go on: an H200 was fed 7,295 frames/s so, and
# 7,414 and 7,573 with this.
_SWITCH_S = 0.0005

_lock = threading.Lock()
_loaded: dict[str, FirstStage | JoinedStage] = {}
_stops: dict[str, threading.Event] = {}


def first_stages(stages: tuple[Stage, ...]) -> FirstStage | JoinedStage:
    """The process's first stages of these kinds: loaded at the first batch, kept for the others."""
    with _lock:
        # Why its precision was chosen makes it no other: the one that was loaded ahead may not know.
        key = "".join(repr(replace(stage, precision="")) for stage in stages)
        if key not in _loaded:
            sys.setswitchinterval(_SWITCH_S)
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
