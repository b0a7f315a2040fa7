"""The flow run that a worker's tasks belong to, as Prefect wants it around each, made once a thread.

Prefect hydrates it anew for every task: it reads its settings from the environment and from files again,
and makes HTTP clients with all certificates, twice: 62 ms of CPU. On a card a task of 64 clips takes
0.3 s. A quarter of what a worker's threads did there was this, and decoders waited meanwhile.
"""

from __future__ import annotations

import contextvars
import functools
import pickle
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, TypeVar

import cloudpickle
from prefect.context import SettingsContext, SyncClientContext, serialize_context

_T = TypeVar("_T")
_kept = threading.local()


def context_of_run() -> bytes:
    """The flow run that this is in, for its tasks on the workers."""
    return bytes(cloudpickle.dumps(serialize_context()))


def within_run(context: bytes, call: Callable[[dict[str, Any]], _T]) -> _T:
    """What `call` returns where the settings and the client of a `context_of_run` are in force.

    It is given the context as Prefect's engines take it. A thread keeps them for its next task of the
    run, and gives them up for that of another.
    """
    thread: _OfThread | None = getattr(_kept, "thread", None)
    if thread is None or thread.context != context:
        _kept.thread = None  # nothing that is closed stays, should the other not come about
        if thread is not None:
            thread.close()
        thread = _kept.thread = _OfThread(context)
    return thread.variables.run(call, thread.hydrated)


class _OfThread:
    """One thread's: its context variables, in which Prefect finds a client that is open."""

    def __init__(self, context: bytes) -> None:
        self.context = context
        self.hydrated = _hydrated(context)
        self.variables = contextvars.copy_context()
        self._open = ExitStack()
        self.variables.run(self._enter)

    def _enter(self) -> None:
        settings = self.hydrated.get("settings_context")
        if settings:
            self._open.enter_context(SettingsContext(**settings))
        self._open.enter_context(SyncClientContext())

    def close(self) -> None:
        self.variables.run(self._open.close)


@functools.lru_cache(maxsize=1)
def _hydrated(context: bytes) -> dict[str, Any]:
    """The context with its settings as Prefect's own values, which are taken as they are."""
    values: dict[str, Any] = pickle.loads(context)
    if settings := values.get("settings_context"):
        read = SettingsContext(**settings)
        values["settings_context"] = {"profile": read.profile, "settings": read.settings}
    return values
