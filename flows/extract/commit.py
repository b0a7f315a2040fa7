"""Results of batches on their way into a store: the small columns, and what they add up to.

The flow's process alone commits: a worker writes its batch's features and nothing else.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from flows.extract.summary import Summary
from flows.extract.values import BatchResult
from store import FAILED, READY, Writer


@dataclass(slots=True, kw_only=True)
class Totals:
    """The results of a run's batches, added up.

    stopped: clips that are left to the next run · damaged: rows to be made again, of one pass.
    """

    ready: int = 0
    failed: int = 0
    stopped: int = 0
    frames: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)
    warnings: Counter[str] = field(default_factory=Counter)  # of ready rows, by reason
    cut_off_s: float = 0.0
    stage_seconds: dict[str, float] = field(default_factory=dict)
    write_s: float = 0.0
    commit_s: float = 0.0
    damaged: list[int] = field(default_factory=list)
    stopped_by: str = ""  # SIGINT or SIGTERM, where the user has ended the run
    software: dict[str, str] = field(default_factory=dict)

    def add(self, other: Totals) -> None:
        """Add the results of another pass."""
        for item in fields(self):
            mine, more = getattr(self, item.name), getattr(other, item.name)
            setattr(self, item.name, _added(mine, more))

    def facts(self) -> dict[str, Any]:
        """The totals that are facts of a run's `Summary`, too: the fields of the same name."""
        names = {item.name for item in fields(Summary)}
        return {i.name: getattr(self, i.name) for i in fields(self) if i.name in names}


def _added(mine: Any, more: Any) -> Any:
    """Counts, seconds and lists are added, numbers by name each; of texts, the first that says something.

    >>> _added({"cnn": 1.0}, {"cnn": 2.0, "decode": 1.0})
    {'cnn': 3.0, 'decode': 1.0}
    """
    if isinstance(mine, str):
        return mine or more
    if isinstance(mine, dict):
        return mine | {k: _added(mine[k], v) if k in mine else v for k, v in more.items()}
    return mine + more


COMMIT_EVERY_S = 5.0
"""Also where nothing is new, since the batches in flight are noted with it."""
_LEAST_S = 0.5
_SHARE = 0.02  # of the time, for commits that are sooner


class Committer:
    """Takes in the results of batches and commits them. `totals` adds them up."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._seconds: dict[str, tuple[dict[str, float], dict[str, float]]] = {}
        self.totals = Totals()
        self._committed_at = time.monotonic()
        self._took_s = 0.0
        self._has_news = False

    @property
    def is_due(self) -> bool:
        """Whether it is time to commit: at once what is new, unless that would take too much time."""
        since_s = time.monotonic() - self._committed_at
        soon_s = max(_LEAST_S, self._took_s / _SHARE)
        return since_s >= COMMIT_EVERY_S or (self._has_news and since_s >= soon_s)

    def accept(self, result: BatchResult) -> None:
        """Take a batch's result into the writer's columns and the totals; `flush` commits it."""
        writer, totals = self._writer, self.totals
        self._has_news = True
        # Batches share a worker: from its first batch's beginning to its last one's end.
        began, ended = result.worker_seconds
        first, last = self._seconds.setdefault(result.worker, (began, ended))
        self._seconds[result.worker] = (
            {name: min(value, began[name]) for name, value in first.items()},
            {name: max(value, ended[name]) for name, value in last.items()},
        )
        totals.write_s += result.write_s
        totals.software |= result.software
        status = np.array(result.status)
        made = status != "stopped"
        rows = result.rows[made]
        totals.stopped += int((~made).sum())
        if result.digests is not None and len(rows):
            every = np.arange(result.first_row, result.first_row + len(result.digests))
            members = np.isin(every, rows)
            writer.set(every[members], digest=result.digests[members])
        writer.set(
            rows,
            **{
                name: np.array(values, dtype=object if isinstance(values[0], str) else None)[made]
                for name, values in result.columns.items()
            },
        )
        writer.put_steps(rows, result.mask[made], result.frame_index[made], result.timestamp[made])
        for name, code in (("ready", READY), ("failed", FAILED)):
            chosen = status == name
            writer.mark(result.rows[chosen], code, np.array(result.reason, object)[chosen])
        if result.damaged:
            totals.damaged += writer.unmake(result.damaged).tolist()
        totals.ready += int((status == "ready").sum())
        totals.failed += int((status == "failed").sum())
        totals.frames += int(result.mask[made].sum())
        totals.cut_off_s += float(np.nansum(result.columns.get("cut_off_s", [])))
        ids = writer.column("video_id")
        each = zip(result.rows, result.status, result.reason, result.detail, strict=True)
        for row, state, reason, detail in each:
            if state == "failed":
                failure = {"row": int(row), "video_id": str(ids[row])}
                totals.failures.append(failure | {"reason": reason, "detail": detail})
            elif state == "ready" and reason:
                totals.warnings[reason] += 1

    def flush(self, in_flight: Iterable[int]) -> None:
        """Commit what was accepted, and record the batches that workers may write now."""
        started = time.monotonic()
        self._writer.flush()
        self._writer.in_flight(in_flight)
        self._has_news, self._committed_at = False, time.monotonic()
        self._took_s = self._committed_at - started
        self.totals.commit_s += self._took_s

    def close(self) -> Totals:
        """The totals, with the seconds that the workers spent by stage."""
        spent = self.totals.stage_seconds
        for began, ended in self._seconds.values():
            for name, value in ended.items():
                spent[name] = spent.get(name, 0.0) + value - began[name]
        return self.totals
