"""What a run sends to its workers, and what comes back: batches of clips, and their results."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.features.stage import Stage
from pipeline.spans import WHOLE, Span

_NAMED = 60  # characters of a clip's id in a batch's name


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """A clip to extract: its row in the store, its id, where to read it, and how large the file is.

    span: the part of the file that it is. sha256: of the file, where the run has taken it already.
    """

    row: int
    id: str
    path: str
    size_bytes: int
    span: Span = WHOLE
    sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The clips of one chunk to extract, and the digests of the rows that stay.

    run: names the run to its workers · token: of the lease, None where the run holds none · beside:
    batches of other stores of the run that have clips in common with it: all are made by one task, from
    one reading of each clip · store: the number of its store among `stages`, the first stages of the
    run's stores, where there are several.
    """

    number: int
    url: str
    first_row: int
    rows: int
    clips: tuple[Clip, ...]
    kept: dict[int, int]
    run: str
    token: str | None
    stage: Stage
    attempt: int = 0
    beside: tuple[Batch, ...] = ()
    store: int = 0
    stages: tuple[Stage, ...] = ()

    @property
    def parts(self) -> tuple[Batch, ...]:
        """All batches that its task makes."""
        return (self, *self.beside)

    @property
    def name(self) -> str:
        """What the Prefect UI and the log show, e.g. `batch 12 · fight/a.mp4 and 63 more`."""
        first, others = self.clips[0].id, len(self.clips) - 1
        if len(first) > _NAMED:
            first = f"...{first[-_NAMED:]}"  # the font of the UI's run graph knows no ellipsis
        more = f" and {others} more" if others else ""
        again = f" · attempt {self.attempt + 1}" if self.attempt else ""
        return f"batch {self.number} · {first}{more}{again}"


@dataclass(slots=True, kw_only=True)
class BatchResult:
    """The values that the flow commits: one entry per extracted clip, in the order of `rows`.

    beside: the results of the batches beside it · counted: which of its clips stand in none before it,
    (clips,) bool; None for all ·
    mask, frame_index, timestamp: (clips, steps); digests of every row of the chunk from `first_row`;
    damaged: rows that were to be kept and whose digest did not match; worker_seconds: what the
    worker's process had spent by stage before and after this batch.
    """

    number: int
    first_row: int
    rows: np.ndarray
    status: list[str]
    reason: list[str]
    detail: list[str]
    mask: np.ndarray
    frame_index: np.ndarray
    timestamp: np.ndarray
    columns: dict[str, list[Any]]
    digests: np.ndarray | None
    damaged: list[int]
    worker: str
    worker_seconds: tuple[dict[str, float], dict[str, float]]
    write_s: float
    software: dict[str, str] = field(default_factory=dict)
    store: int = 0
    counted: np.ndarray | None = None
    beside: tuple[BatchResult, ...] = ()

    @property
    def parts(self) -> tuple[BatchResult, ...]:
        """The results of all batches of the task."""
        return (self, *self.beside)
