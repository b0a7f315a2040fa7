"""Runs that are asked to stop: Ctrl-C or SIGTERM once ends them in order, twice at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from flows.notices import notice

scheduled = threading.Event()
"""Set in a process of a schedule: a signal that cuts its run off has cancelled it, it has not crashed."""

RUN_BY_PREFECT = "PREFECT__FLOW_RUN_ID"
"""Set by a Prefect runner, which handles SIGTERM itself."""


@dataclass(slots=True)
class Stopping:
    """Whether someone has asked to stop, and by which signal."""

    event: threading.Event = field(default_factory=threading.Event)
    signal: str = ""


@contextlib.contextmanager
def on_signals(handle: Callable[[int], None], *numbers: int) -> Iterator[None]:
    """Within the block these signals call `handle(number)`. Other threads than the main one: nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {n: signal.signal(n, lambda number, frame: handle(number)) for n in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def signals_of_a_run() -> list[signal.Signals]:
    """The signals that ask a run to stop.

    Under a Prefect runner SIGTERM is left to Prefect, which ends the flow at once: the runner means
    a cancelled run, or its own end, and waits for nothing.
    """
    return [signal.SIGINT] + [signal.SIGTERM] * (RUN_BY_PREFECT not in os.environ)


def stopped_status(by: str) -> int:
    """The exit status of a command that was stopped by the signal of this name."""
    return 143 if by == "SIGTERM" else 130


def interrupt(number: int, frame: object = None) -> None:
    """A handler of signals that raises `KeyboardInterrupt` with the signal's name."""
    raise KeyboardInterrupt(signal.Signals(number).name)


@contextlib.contextmanager
def stopping() -> Iterator[Stopping]:
    """Turn the first Ctrl-C or SIGTERM into a set event; the second raises `KeyboardInterrupt`."""
    asked, at_once = Stopping(), threading.Event()

    def handle(number: int) -> None:
        again, asked.signal = asked.event.is_set(), signal.Signals(number).name
        asked.event.set()
        if again:
            at_once.set()
            raise KeyboardInterrupt(asked.signal)
        notice("stopping after this batch (once more to stop at once)")

    with on_signals(handle, *signals_of_a_run()):
        try:
            yield asked
        except Exception as error:
            # Libraries turn what is raised within them into errors of their own; Pydantic does.
            if at_once.is_set():
                raise KeyboardInterrupt(asked.signal) from error
            raise
