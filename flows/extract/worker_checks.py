"""Questions to workers: whether they reach what a run needs. No question waits for an answer."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import distributed
import numpy as np

import store
from flows.server.health import answers
from pipeline.features.catalog.remote import filesystem, is_remote, local_path, without_secrets
from pipeline.features.files import answered, is_reachable

_TRIES = 3  # a busy server may be slow to answer
_TRIED_CLIPS, _SAMPLED_CLIPS = 16, 4
_REFUSES_FOR_S = 24 * 3600  # a run that was killed leaves its check on the scheduler


def readable_sample(clips: Sequence[str]) -> list[str]:
    """A few of the clips that this process can read, from all over the run; empty where none is."""
    spread = np.linspace(0, len(clips) - 1, min(len(clips), _TRIED_CLIPS)).round().astype(int)
    sample = [clips[i] for i in np.unique(spread)]
    return [clip for clip, there in zip(sample, _reached(sample), strict=True) if there][
        :_SAMPLED_CLIPS
    ]


@dataclass(slots=True, kw_only=True)
class Check:
    """What a worker is asked: `problem` returns a sentence, empty if there is none.

    further_urls: of the run's other stores. clips: some that the flow itself can read; a worker that can
    read none of them lacks the mount.
    """

    store_url: str
    clips: Sequence[str]
    api_url: str
    versions: dict[str, str] = field(default_factory=lambda: _versions())
    further_urls: tuple[str, ...] = ()

    def problem(self) -> str:
        """The first problem of this process, with its remedy; or empty."""
        for name, wanted in self.versions.items():
            here = _versions()[name]
            if here != wanted:
                return (
                    f"it runs {name} {here} and this run {wanted}: install the same version there"
                )
        for url in (self.store_url, *self.further_urls):
            if not store.exists(url):
                return f"it does not see the store {url}: mount it there, or use a URL"
        if self.clips and not any(_reached(self.clips)):
            return (
                f"it does not see the clip {without_secrets(self.clips[0])}: mount the clips there "
                "at the same path, or give them by URL"
            )
        if self.api_url and not any(answers(self.api_url) for _ in range(_TRIES)):
            return (
                f"it does not reach the Prefect server {self.api_url}: start one that all machines "
                "reach (make ui HOST=0.0.0.0) and set PREFECT_API_URL to it"
            )
        return ""


class WorkerCheck(distributed.WorkerPlugin):  # type: ignore[misc]
    """The same check on every worker that joins during the run; one that fails it does not join."""

    def __init__(self, check: Check, *, passed: set[str]) -> None:
        self.check = check
        self.passed = passed
        self.until = time.time() + _REFUSES_FOR_S

    async def setup(self, worker: Any) -> None:
        """Raise, and so refuse the worker, if it has a problem."""
        if worker.address in self.passed or time.time() > self.until:
            return
        problem = await asyncio.to_thread(self.check.problem)
        if problem:
            raise RuntimeError(f"this worker cannot take part in the run: {problem}")


def _versions() -> dict[str, str]:
    names = ("pixels-once", "zarr", "keras")
    return {name: importlib.metadata.version(name) for name in names}


def _reached(clips: Sequence[str]) -> list[bool]:
    """`reaches` of each clip, all at once: one that does not answer holds up no other."""
    with ThreadPoolExecutor(max(1, len(clips))) as threads:
        return list(threads.map(reaches, clips))


def reaches(clip: str) -> bool:
    """Whether this process can read a clip; false where no answer comes in time."""
    if not is_remote(clip):
        return is_reachable(local_path(clip))

    def touch() -> bool:
        fs, path = filesystem(clip)
        return bool(fs.exists(path))

    try:
        return answered(f"{clip}/", touch)
    except Exception:  # each service raises its own kinds; all mean no
        return False


def workers_of(client: distributed.Client) -> dict[str, dict[str, Any]]:
    """Address → what the scheduler says of that worker now. Raises `OSError` where it does not answer.

    Not by `Client.scheduler_info`: it may return what the client's own look at the scheduler, every two
    seconds, has found, and that lists no worker: on a busy machine all of them seem to have left.
    """
    return dict(client.sync(client.scheduler.identity, n_workers=-1)["workers"])


def ask(client: distributed.Client, function: Callable[[], Any], worker: str) -> Future[Any]:
    """A future of {worker: answer or exception}; asking does not wait, whatever the worker does."""
    question = client.run(function, workers=[worker], on_error="return", asynchronous=True)
    return asyncio.run_coroutine_threadsafe(question, client.loop.asyncio_loop)


def within(limit_s: float, call: Callable[[], Any]) -> bool:
    """Whether a call that may hang or fail, and need not succeed, ended in time."""

    def run() -> None:
        with contextlib.suppress(Exception):
            call()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(limit_s)
    return not thread.is_alive()


def answer(question: Future[Any], worker: str) -> str | None:
    """A worker's answer: a problem, empty if there is none; None if the worker was not reached."""
    try:
        reply = question.result().get(worker)
    except Exception as error:  # the scheduler did not take the question
        reply = error
    if reply is None or isinstance(reply, OSError | TimeoutError):
        return None  # a connection that was not made or was lost: CommClosedError is an OSError
    if isinstance(reply, ModuleNotFoundError):
        return f"it lacks the package {reply.name}: install pixels-once there"
    if isinstance(reply, BaseException):
        return without_secrets(f"{type(reply).__name__}: {reply}")
    return str(reply)
