"""A training that is asked to stop: Ctrl-C or SIGTERM once ends it within a batch, twice at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType

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
def stopping() -> Iterator[Stopping]:
    """Turn the first Ctrl-C or SIGTERM into a set event; the second raises `KeyboardInterrupt`.

    Under a Prefect runner SIGTERM is left to Prefect, and outside of the main thread both are.
    """
    asked = Stopping()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def handle(number: int, frame: FrameType | None) -> None:
        again, asked.signal = asked.event.is_set(), signal.Signals(number).name
        asked.event.set()
        if again:
            raise KeyboardInterrupt(asked.signal)
        print("stopping after this batch (once more to stop at once)", file=sys.stderr)

    ours = [signal.SIGINT] + [signal.SIGTERM] * (RUN_BY_PREFECT not in os.environ)
    before = {number: signal.signal(number, handle) for number in ours}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
