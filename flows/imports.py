"""Imports without garbage collection."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def collection_paused() -> Iterator[None]:
    """Pause the garbage collector for imports: what they make stays, and is not looked at again.

    Measured on Prefect: 15 % of the CPU time of importing its client, 25 % of its server.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()
