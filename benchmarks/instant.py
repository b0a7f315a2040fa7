"""A worker whose batches end at once: Dask's `preload` of `benchmarks.scheduling`.

Every clip is reported ready, and nothing is decoded, computed or written: all else is a run's own.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from flows.extract.batches import Reporter, worker_name
from flows.extract.values import Batch, BatchResult


def extract_batch(batch: Batch) -> BatchResult:
    """What `flows.extract.batches.extract_batch` returns, of clips that are ready at once."""
    count, steps = len(batch.clips), int(batch.stage.spec["sampling"]["steps"])
    index = np.tile(np.arange(steps, dtype=np.int32), (count, 1))
    report = Reporter(batch.run)
    for clip in batch.clips:
        report(batch.store, clip.row, SimpleNamespace(status="ready", mask=np.ones(steps, bool)))
    report.flush()
    nothing = {"decode": 0.0, "cnn": 0.0, "waiting": 0.0}
    return BatchResult(
        number=batch.number,
        first_row=batch.first_row,
        rows=np.array([clip.row for clip in batch.clips]),
        status=["ready"] * count,
        reason=[""] * count,
        detail=[""] * count,
        mask=np.ones((count, steps), bool),
        frame_index=index,
        timestamp=index / np.float32(30),
        columns={
            "fps": [30.0] * count,
            "width": [320] * count,
            "height": [240] * count,
            "frames_declared": [60] * count,
            "frames_decoded": [60] * count,
            "decoder": ["none"] * count,
            "sha256": [f"{clip.row:064x}" for clip in batch.clips],
        },
        digests=np.arange(batch.first_row, batch.first_row + batch.rows).astype(np.uint32) + 1,
        damaged=[],
        worker=worker_name(),
        worker_seconds=(nothing, nothing),
        write_s=0.0,
    )


def dask_setup(worker: Any) -> None:
    """Called by Dask when the worker starts."""
    from flows.extract import tasks

    tasks.extract_batch = extract_batch
