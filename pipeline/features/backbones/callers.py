"""How many threads must call a backbone at once to keep its device busy: measured, and kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import engine
from pipeline.features.backbones.protocol import Backbone
from pipeline.homes import cache_folder
from pipeline.plain import write_json

MOST = 4
SECONDS = 0.5
"""How long each number of callers is measured."""

ENOUGH = 1.04
"""One more caller must give this much more; each holds a batch of frames."""


def best_callers(backbone: Backbone, *, precision: str, cache: Path | None = None) -> int:
    """The smallest number of callers, 1 to 4, that nothing larger beats by 4 %.

    Cached by model, precision, batch, device and versions in `cache` (None: the user's cache), so it is
    measured once. A cache file that cannot be read or written is ignored.
    """
    facts = {
        "backbone": backbone.name,
        "size": backbone.size,
        "batch": backbone.batch,
        "precision": precision,
        "device": engine.device_name(),
        "software": backbone.software,
    }
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    file = (cache or cache_folder()) / "callers" / f"{key}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        callers = int(json.loads(file.read_text())["callers"])
        if 1 <= callers <= MOST:
            return callers
    rate(backbone, MOST)  # the first calls find cold memory
    rates = {callers: rate(backbone, callers) for callers in range(1, MOST + 1)}
    best = chosen(rates)
    kept: dict[str, Any] = {**facts, "callers": best, "frames_per_second": rates}
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, kept)
    return best


def chosen(rates: dict[int, float]) -> int:
    """The smallest number of callers whose rate none exceeds by more than 4 %."""
    return min(callers for callers in rates if rates[callers] * ENOUGH >= max(rates.values()))


def rate(backbone: Backbone, callers: int, seconds: float = SECONDS) -> float:
    """Frames per second of this many threads that copy whole batches together and call the backbone."""
    shape = (backbone.batch, backbone.size, backbone.size, 3)
    frames = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    done = [0] * callers
    began = time.perf_counter()

    def call(number: int) -> None:
        own = np.empty_like(frames)
        while time.perf_counter() - began < seconds:
            own[:] = frames  # as frames of several clips are brought together
            backbone(own)
            done[number] += len(own)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.perf_counter() - began)
