"""Who holds a lease, and whether that process is still alive.

Wall clocks are never compared, neither with another host's nor over time: they can be set.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
import time
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime

import psutil

DEAD_AFTER_S = 60.0

_given_up: set[str] = set()  # tokens of this process's own leases that it no longer holds


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who writes to a store: written at each beat, read by the next process that wants to write.

    `since`, `beat` and `started` are seconds since the epoch on the holder's clock, for people (a
    beat is only compared for equality); `machine` is one boot of one host and one container (process
    numbers are valid only inside it), empty without a holder;
    `ticks` is when the process started in the kernel's clock ticks since boot (0: not known);
    `batches` are the chunks that may be written to at any moment.
    """

    owner: str
    host: str
    machine: str
    pid: int
    started: float
    token: str
    since: float
    beat: float
    batches: tuple[int, ...] = ()
    ticks: int = 0

    @classmethod
    def me(cls, owner: str = "") -> Holder:
        """This process, with a fresh token."""
        now = time.time()
        return cls(
            owner=owner or getpass.getuser(),
            host=socket.gethostname(),
            machine=_machine(),
            pid=os.getpid(),
            started=psutil.Process().create_time(),
            token=uuid.uuid4().hex,
            since=now,
            beat=now,
            ticks=_stat(os.getpid())[1],
        )

    @classmethod
    def from_json(cls, data: bytes) -> Holder:
        """A holder as this version or an older one wrote it; an unreadable one counts as none."""
        try:
            values = json.loads(data)
            known = {name: values[name] for name in cls.__slots__ if name in values}
            return cls(**{**known, "batches": tuple(known["batches"])})
        except (ValueError, KeyError, TypeError):
            return _NO_HOLDER

    def to_json(self) -> bytes:
        """The holder as it is stored."""
        return json.dumps(asdict(self), indent=1).encode()

    def alive(self) -> bool | None:
        """Whether the process is alive; None where that cannot be seen from here (`Watch` decides).

        On this machine the process table decides, at once: process numbers are reused, so the start
        is compared too, in ticks since boot, which no correction of the clock moves.
        """
        if not self.machine or self.token in _given_up:
            return False
        if self.machine != _machine():
            return None
        state, ticks = _stat(self.pid)
        if not state:
            try:
                os.kill(self.pid, 0)
            except ProcessLookupError:
                return False
            except OSError:
                pass  # someone else's, in a process table that hides it
            return None
        if state in "ZX":
            return False
        if not self.ticks:  # written by a version that did not know them
            return None
        return ticks == self.ticks

    def give_up(self) -> None:
        """This process no longer holds the lease, even if its file could not be removed."""
        _given_up.add(self.token)

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.since).astimezone().isoformat(" ", "seconds")
        return f"{self.owner} (process {self.pid} on {self.host}, since {since})"


_NO_HOLDER = Holder(
    owner="", host="", machine="", pid=0, started=0.0, token="", since=0.0, beat=0.0
)


class Watch:
    """Whether holders on other hosts are alive: one whose beat changes between two looks is.

    So is a holder that appears after the first look. A minute of our own monotonic clock without a new
    beat counts as dead.
    """

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, float]] = {}  # token → beat, since when it is unchanged
        self._moved: set[str] = set()
        self._looked = False

    def look(self, holders: Iterable[Holder]) -> None:
        """Take note of the holders that are there now."""
        now = time.monotonic()
        for holder in holders:
            known = self._seen.get(holder.token)
            if known is None or known[0] != holder.beat:
                self._seen[holder.token] = (holder.beat, now)
                if known is not None or self._looked:
                    self._moved.add(holder.token)
        self._looked = True

    def alive(self, holder: Holder) -> bool | None:
        """Whether a holder that was looked at is alive; None while that is undecided."""
        alive = holder.alive()
        if alive is not None:
            return alive
        if time.monotonic() - self._seen[holder.token][1] >= DEAD_AFTER_S:
            return False
        return True if holder.token in self._moved else None


def _machine() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{file.read().strip()}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return f"{socket.gethostname()}/{psutil.boot_time():.0f}"


def _stat(pid: int) -> tuple[str, int]:
    """(state letter, start in ticks since boot) of a process; ("", 0) where it cannot be seen."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name in parentheses may hold anything; state is field 3, start field 22 of man proc.
            fields = file.read().rpartition(b")")[2].split()
        return fields[0].decode(), int(fields[19])
    except (OSError, IndexError, ValueError):
        return "", 0
