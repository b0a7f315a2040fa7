"""A run's artifacts and events, written by a thread of their own, so that no server delays the work."""

from __future__ import annotations

import base64
import contextlib
import contextvars
import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Self

from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.exceptions import MissingContextError

from flows.notices import notice

_AT_THE_END_S = 15.0
Job = Callable[..., Any]


class RunPage:
    """Artifacts and events of a run, made one after the other in the order given. A context manager.

    A job that fails, after the client's own retries, is dropped with one line in the log. `latest` keeps
    only the last job of a name that has not begun: a progress bar that fell behind. Leaving the block
    waits for what is left, for 15 s at most.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[str, Job] | None] = queue.SimpleQueue()
        self._latest: dict[str, Job] = {}
        self._lock = threading.Lock()
        self._lost: dict[str, Exception | None] = {}
        # Prefect finds the run, and its client, in the context.
        context = contextvars.copy_context()
        self._thread = threading.Thread(
            target=context.run, args=(self._work,), name="run-page", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._jobs.put(None)
        client: Any = get_client(sync_client=True)
        hurried = getattr(client, "hurried", contextlib.nullcontext)
        with hurried(_AT_THE_END_S / 3):  # the jobs that are left retry no longer than we wait
            self._thread.join(timeout=_AT_THE_END_S)
        lost = self._lost.copy()  # the thread may still be at a job
        if self._thread.is_alive():
            lost.setdefault("what was left", None)
        if lost:
            causes = {str(cause) for cause in lost.values() if cause is not None}
            why = f" ({'; '.join(sorted(causes))})" if causes else ""
            _log(f"the run's page lacks {', '.join(lost)}: the Prefect server did not take it{why}")

    def add(self, what: str, job: Job, *arguments: Any, **options: Any) -> None:
        self._jobs.put((what, partial(job, *arguments, **options)))

    def latest(self, what: str, job: Job, *arguments: Any) -> None:
        """Add a job in place of an earlier one of the same name that still waits."""
        with self._lock:
            waiting = what in self._latest
            self._latest[what] = partial(job, *arguments)
        if not waiting:
            self._jobs.put((what, lambda: self._take(what)()))

    def _take(self, what: str) -> Job:
        with self._lock:
            return self._latest.pop(what)

    def _work(self) -> None:
        while (item := self._jobs.get()) is not None:
            what, job = item
            try:
                job()
            except Exception as error:  # whatever it is, the work goes on without it
                self._lost[what] = error


def _log(text: str) -> None:
    with contextlib.suppress(MissingContextError):
        get_run_logger().warning(text)
    notice(text)


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """The lines of a table.

    >>> markdown_table(("run", "top-1"), [("gru", 0.5)])
    ['| run | top-1 |', '| --- | --- |', '| gru | 0.5 |']
    """
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(map(str, cells))} |" for cells in lines]


def picture(title: str, png: bytes) -> str:
    """A PNG in markdown as a data URL: image artifacts would need an address of their own."""
    return f"![{title}](data:image/png;base64,{base64.b64encode(png).decode()})"
