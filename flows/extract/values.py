"""What a run sends to its workers, and what comes back: batches of clips, and their results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.features.stage import Stage
from pipeline.spans import WHOLE, Span

_NAMED = 60  # characters of a clip's id in a batch's name

Key = tuple[int, int]
"""The number of a store of the run, and that of a batch in it."""


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
    batches of other stores of the run that have clips in common with it: all are made together, from
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
        """It, and the batches that are made with it."""
        return (self, *self.beside)

    @property
    def key(self) -> Key:
        """Tells it from all others of the run."""
        return self.store, self.number

    @property
    def name(self) -> str:
        """What the log shows, e.g. `batch 12 · fight/a.mp4 and 63 more`."""
        return name_of([self])


def name_of(batches: Sequence[Batch]) -> str:
    """What the Prefect UI shows of a task: `batches 12 to 27 · a.mp4 and 1,023 more`."""
    first, others = batches[0].clips[0].id, sum(len(batch.clips) for batch in batches) - 1
    if len(first) > _NAMED:
        first = f"...{first[-_NAMED:]}"  # the font of the UI's run graph knows no ellipsis
    more = f" and {others:,} more" if others else ""
    attempt = batches[0].attempt
    again = f" · attempt {attempt + 1}" if attempt else ""
    which = f"batch {batches[0].number}"
    if len(batches) > 1:
        which = f"batches {batches[0].number} to {batches[-1].number}"
    return f"{which} · {first}{more}{again}"


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
    def key(self) -> Key:
        """That of its batch."""
        return self.store, self.number

    @property
    def parts(self) -> tuple[BatchResult, ...]:
        """The results of all batches that were made together."""
        return (self, *self.beside)
