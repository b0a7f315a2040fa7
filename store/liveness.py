"""Who holds a lease, and whether that process still lives.

No clock is held against another's, nor against itself at another time: clocks are set.
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
    """Who writes to a store: written at each beat, read by whoever wants to write next.

    `since`, `beat` and `started` are seconds since the epoch on the holder's clock, for people (a
    beat is compared for being another one, never for its value); `machine` is one boot of one host
    (and one container: process numbers mean something only inside it), empty where nobody holds;
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
        """A holder as this version or an older one wrote it; unreadable, it holds nobody off."""
        try:
            values = json.loads(data)
            known = {name: values[name] for name in cls.__slots__ if name in values}
            return cls(**{**known, "batches": tuple(known["batches"])})
        except (ValueError, KeyError, TypeError):
            return _NOBODY

    def to_json(self) -> bytes:
        """The holder as it lies in the store."""
        return json.dumps(asdict(self), indent=1).encode()

    def alive(self) -> bool | None:
        """Whether the process lives; None where that cannot be seen from here (`Watch` finds out).

        On this machine the process table decides, at once: process numbers are reused, so the start
        is compared too, in ticks since boot, which no correction of the clock moves.
        """
        if not self.machine or self.token in _given_up:
            return False
        if self.machine != _machine():
            return None
        state, ticks = _stat(self.pid)
        if not state:
            return None if _exists(self.pid) else False
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


_NOBODY = Holder(owner="", host="", machine="", pid=0, started=0.0, token="", since=0.0, beat=0.0)


class Watch:
    """Whether holders elsewhere live: a beat that moves while one watches is a sign of life.

    So is a holder that was not there at the first look. A minute of one's own monotonic clock without a
    sign of life is death.
    """

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, float]] = {}  # token → beat, since when it stands still
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
        """Whether a holder that was looked at lives; None while that is open."""
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


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # someone else's, in a process table that hides it
        return True
    return True
