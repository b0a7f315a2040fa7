"""What snapshots of one store and of several have in common: rows that must be ready, and streams."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from store.layout import READY, STATUS_NAMES
from store.sequences import Sequences, concatenate

Load = Callable[[NDArray[np.int64]], Sequences]


def counts_of(status: NDArray[Any]) -> dict[str, int]:
    """How many rows have each status, by its name."""
    counts = np.bincount(status, minlength=len(STATUS_NAMES))
    return {state: int(counts[i]) for i, state in enumerate(STATUS_NAMES)}


def require_ready(status: NDArray[Any], index: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows as they are; raises `ValueError` if one is not ready. status: of all rows."""
    bad = index[status[index] != READY]
    if len(bad):
        named = ", ".join(f"{r} ({STATUS_NAMES[status[r] % 4]})" for r in bad[:5].tolist())
        raise ValueError(
            f"{len(bad)} of {len(index)} rows are not ready: {named}{', …' * (len(bad) > 5)}: "
            "choose rows whose status is ready"
        )
    return index


def stream(load: Load, order: Iterator[NDArray[np.int64]], size: int) -> Iterator[Sequences]:
    """The rows of all windows, `size` at a time; the next window is read while one is used."""
    held: list[Sequences] = []
    for window in _read_ahead(load, order):
        start = 0
        while start < len(window):
            held.append(window.take(slice(start, start + size - sum(map(len, held)))))
            start += len(held[-1])
            if sum(map(len, held)) == size:
                yield concatenate(held)
                held = []
    if held:
        yield concatenate(held)


def _read_ahead(load: Load, order: Iterator[NDArray[np.int64]]) -> Iterator[Sequences]:
    with ThreadPoolExecutor(1) as ahead:
        reading = deque(ahead.submit(load, rows) for rows in islice(order, 1))
        while reading:
            window = reading.popleft().result()
            reading.extend(ahead.submit(load, rows) for rows in islice(order, 1))
            yield window
