"""What came of a run's batches, added up over its passes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True, kw_only=True)
class Extracted:
    """What came of a run's batches. `rows` counts by outcome; `stopped` rows wait for the next run."""

    ready: int = 0
    failed: int = 0
    stopped: int = 0
    frames: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)
    warnings: Counter[str] = field(default_factory=Counter)  # of ready rows, by reason
    stage_seconds: dict[str, float] = field(default_factory=dict)
    write_s: float = 0.0
    commit_s: float = 0.0
    damaged: list[int] = field(default_factory=list)
    stopped_by: str = ""  # SIGINT or SIGTERM, where the user has ended the run
    software: dict[str, str] = field(default_factory=dict)

    def add(self, other: Extracted) -> None:
        """Take in what another pass did."""
        for name in ("ready", "failed", "stopped", "frames", "write_s", "commit_s"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.failures += other.failures
        self.warnings += other.warnings
        for name, value in other.stage_seconds.items():
            self.stage_seconds[name] = self.stage_seconds.get(name, 0.0) + value
        self.damaged += other.damaged
        self.stopped_by = self.stopped_by or other.stopped_by
        self.software |= other.software


def spent(workers: Iterable[tuple[dict[str, float], dict[str, float]]]) -> dict[str, float]:
    """Seconds by stage over all workers, each from its first account to its last."""
    total: dict[str, float] = {}
    for began, ended in workers:
        for name, value in ended.items():
            total[name] = total.get(name, 0.0) + value - began[name]
    return total


def least(one: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    """The lesser value of each name."""
    return {name: min(value, other[name]) for name, value in one.items()}


def most(one: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    """The greater value of each name."""
    return {name: max(value, other[name]) for name, value in one.items()}
