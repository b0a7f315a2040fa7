"""How a run looks while it runs: a live bar on a terminal, plain lines elsewhere, on standard error."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

from flows.notices import notice

PLAIN_LINE_EVERY_S = 10.0
_POINTS = 512


class Curve:
    """(seconds, frames so far) over a run of any length: at most 512 points, evenly spread."""

    def __init__(self) -> None:
        self.points: list[tuple[float, int]] = [(0.0, 0)]
        self._every_s = 0.0

    def add(self, seconds: float, frames: int, *, last: bool = False) -> None:
        """Add a point, unless the one before it is too near; `last` is always kept."""
        if last or seconds - self.points[-1][0] >= self._every_s:
            self.points.append((round(seconds, 2), frames))
        if len(self.points) > _POINTS:
            self.points = self.points[::2]
            self._every_s = 2 * seconds / _POINTS


class Progress:
    """Counts clips as they finish and shows them: done, failed, frames per second, time left.

    `on_change(fraction, text)` is called at most every two seconds, for the Prefect run's progress
    artifact. Clips may finish in any thread.
    """

    def __init__(
        self,
        total: int,
        *,
        on_change: Callable[[float, str], None] | None = None,
        console: Console | None = None,
    ) -> None:
        self.total = total
        self.done = self.failed = self.frames = 0
        self._console = console or Console(stderr=True, highlight=False)
        self._on_change = on_change
        # By store, a byte a row: a set of numbers takes sixty.
        self._seen: dict[int, bytearray] = {}
        self._lock = threading.Lock()
        self._started = self._reported = self._printed = time.monotonic()
        self._first: float | None = None
        self._bar = RichProgress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("clips · {task.fields[text]}"),
            TimeElapsedColumn(),
            console=self._console,
            refresh_per_second=4,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("features", total=total, text="starting")

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._show()
        self._bar.stop()

    def clip(self, *, row: int, status: str, frames: int, store: int = 0) -> None:
        """Count one finished clip. A row reported twice (its batch was resubmitted) counts once.

        store: whose row it is, where a run fills several.
        """
        with self._lock:
            seen = self._seen.setdefault(store, bytearray())
            seen.extend(bytes(max(0, row + 1 - len(seen))))
            if seen[row]:
                return
            seen[row] = True
            self._first = self._first or time.monotonic()
            self.done += 1
            self.failed += status == "failed"
            self.frames += frames

    def tick(self) -> None:
        """Show what has come since; called by the flow's thread, a few times a second."""
        now = time.monotonic()
        self._show()
        if self._bar.disable and now - self._printed >= PLAIN_LINE_EVERY_S:
            self._printed = now
            notice(f"features: {self.done}/{self.total} clips · {self.text}")
        if self._on_change is not None and now - self._reported >= 2:
            self._reported = now
            self._on_change(self.done / max(1, self.total), self.text)

    def note(self, text: str) -> None:
        """Print one line without disturbing the bar."""
        if self._bar.disable:
            notice(text)
        else:
            self._console.print(text)

    @property
    def text(self) -> str:
        """Failed clips, frames per second and the time left, as text."""
        if self._first is None:
            return "starting the workers"
        elapsed = time.monotonic() - self._started
        left = elapsed / max(self.done, 1) * (self.total - self.done)
        failed = f"{self.failed} failed · " if self.failed else ""
        rate = self.frames / max(elapsed, 1e-9)
        return f"{failed}{rate:.0f} frames/s · {_duration(left)} left"

    def _show(self) -> None:
        self._bar.update(self._task, completed=self.done, text=self.text)


def _duration(seconds: float) -> str:
    """
    >>> _duration(75)
    '1 min 15 s'
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
