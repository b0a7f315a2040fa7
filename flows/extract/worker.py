"""What a worker process keeps from batch to batch: the loaded first stage, and stop requests."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading

from pipeline.features.stage import FirstStage, Stage

_lock = threading.Lock()
_loaded: dict[str, FirstStage] = {}
_stops: dict[str, threading.Event] = {}


def first_stage(stage: Stage) -> FirstStage:
    """The process's first stage of this kind: loaded at the first batch, kept for the others."""
    with _lock:
        key = repr(stage)
        if key not in _loaded:
            threads = int(os.environ.get("PIXELS_ONCE_THREADS", "0"))
            _loaded[key] = FirstStage.load(stage, threads=threads)
        return _loaded[key]


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
