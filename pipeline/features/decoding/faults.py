"""The test seam that makes a decoder process misbehave for real.

`PIXELS_ONCE_FAULTS` holds a JSON object: a pattern of file names (as in `fnmatch`) → `segfault`,
`hang`, `spin_gil` or `eat_memory`. Only decoder processes look at it, once per clip.
"""

from __future__ import annotations

import ctypes
import fnmatch
import json
import os
import time

import numpy as np

VARIABLE = "PIXELS_ONCE_FAULTS"


def act_out_fault(path: str) -> None:
    """Act out the fault that is set for this clip's file name, if any."""
    text = os.environ.get(VARIABLE)
    if not text:
        return
    for pattern, fault in json.loads(text).items():
        if fnmatch.fnmatch(os.path.basename(path), pattern):
            _FAULTS[fault]()


def _segfault() -> None:
    ctypes.string_at(0)


def _hang() -> None:
    while True:
        time.sleep(3600)


def _spin_gil() -> None:
    # PyDLL keeps the GIL: no thread and no Python signal handler of this process runs again.
    ctypes.PyDLL(None).sleep(1_000_000)


def _eat_memory() -> None:
    # The limit counts allocations: pages that are never touched count too, and cost no time.
    eaten = []
    while True:
        eaten.append(np.empty(16 << 20, np.uint8))


_FAULTS = {
    "segfault": _segfault,
    "hang": _hang,
    "spin_gil": _spin_gil,
    "eat_memory": _eat_memory,
}
