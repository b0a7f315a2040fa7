"""The lease: one run at a time writes to a store.

Each acquisition is a file of its own, `status/.lease/NNNNNN.json`, made by exclusive creation; the
highest number holds. A takeover makes the next number, so a writer that was thought dead and wakes
up can only refresh its own, lower file and finds itself replaced. (The files lie inside the folder
of `status`, because Zarr warns of every unknown name directly in a group.)
"""

from __future__ import annotations

import getpass
import json
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

import psutil

from store.errors import LeaseLost, StoreBusy, StoreUnwritable, translated
from store.place import Place

FOLDER = "status/.lease"
BEAT_S = 10.0
DEAD_AFTER_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who writes to a store: written at each beat, read by whoever wants to write next.

    `since` and `beat` are seconds since the epoch on the holder's clock; `machine` is one boot of
    one host (and one container: process numbers mean something only inside it); `batches` are the
    chunks that may be written to at any moment.
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
        )

    def dead(self) -> bool:
        """Whether the lease may be taken over.

        On this machine the process table decides, at once (process numbers are reused, so the
        start time is compared too); elsewhere a minute without a beat does.
        """
        if self.machine == _machine():
            try:
                process = psutil.Process(self.pid)
                if process.status() == psutil.STATUS_ZOMBIE:
                    return True
                return bool(abs(process.create_time() - self.started) > 2.0)
            except psutil.NoSuchProcess:
                return True
            except psutil.AccessDenied:
                return False
        return time.time() - self.beat > DEAD_AFTER_S

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.since).astimezone().isoformat(" ", "seconds")
        return f"{self.owner} (process {self.pid} on {self.host}, since {since})"


# Not a lease of ours: it holds nobody off.
_UNREADABLE = Holder(
    owner="", host="", machine="", pid=0, started=0.0, token="", since=0.0, beat=0.0
)


class Lease:
    """A held lease. `acquire` makes one; `beat` keeps it; `check` proves it; `release` ends it."""

    def __init__(self, place: Place, number: int, holder: Holder) -> None:
        self._place = place
        self._number = number
        self._lock = threading.Lock()  # the beating thread and the writer's own calls
        self._released = False
        self.holder = holder

    @classmethod
    def acquire(
        cls, place: Place, owner: str, *, wait_s: float = 0.0
    ) -> tuple[Lease, Holder | None]:
        """Take the lease; returns it and the dead holder it was taken from, if any.

        Raises `StoreBusy` where another holds it still after `wait_s` seconds, and
        `StoreUnwritable` where the place cannot create exclusively.
        """
        until = time.monotonic() + wait_s
        while True:
            taken = cls._try(place, owner)
            if not isinstance(taken, Holder):
                return taken
            if time.monotonic() >= until:
                raise StoreBusy(
                    f"the store {place.url} is being written by {taken}: wait for it, stop it, "
                    "or use another store",
                    taken,
                )
            time.sleep(min(1.0, max(0.0, until - time.monotonic())))

    @classmethod
    def _try(cls, place: Place, owner: str) -> tuple[Lease, Holder | None] | Holder:
        for _ in range(20):
            seen = _look(place)
            alive = [found for found in seen.values() if not found.dead()]
            if alive:
                return alive[-1]
            before = seen[max(seen)] if seen else None
            me = Holder.me(owner)
            if before is not None:
                me = replace(me, batches=before.batches)  # until they are checked, they are suspect
            data, number = _json(me), max(seen, default=0) + 1
            if not place.put_new(_key(number), data):
                continue  # another was quicker: look again
            now = _look(place)
            mine = now.pop(number, None)
            if mine == me and all(seen.get(n) == found for n, found in now.items()):
                # Whoever creates a number after this look sees ours and steps back.
                if not place.creates_exclusively(_key(number), data):
                    place.delete(_key(number))
                    raise StoreUnwritable(
                        f"the store {place.url} is on a service without exclusive creation, so "
                        "two runs could write at once: use another service, or --no-lease and "
                        "one run only"
                    )
                for old in seen:
                    place.delete(_key(old))
                return cls(place, number, me), before
            # Someone created a number between our look and our creation (numbers are used again,
            # so the files are compared whole). Both step back; one comes first.
            if mine == me:
                place.delete(_key(number))
            time.sleep(random.uniform(0.01, 0.1))
        return before or Holder.me("another run")

    def check(self) -> None:
        """Prove that the lease is ours; raises `LeaseLost`."""
        check_token(self._place, self.holder.token)

    def beat(self, batches: Iterable[int] | None = None) -> None:
        """Prove and refresh the lease, and record the batches in flight where given."""
        with self._lock:
            if self._released:
                return
            self.check()
            kept = self.holder.batches if batches is None else tuple(sorted(set(batches)))
            self.holder = replace(self.holder, beat=time.time(), batches=kept)
            self._place.put(_key(self._number), _json(self.holder))

    def release(self, suspects: Iterable[int] = ()) -> None:
        """Give the lease back (only our own file is ever touched).

        Batches that may still be written to are left behind in a lease that nobody holds, so that
        the next writer knows to check them.
        """
        left = tuple(sorted(set(suspects)))
        with self._lock:
            self._released = True
            found = _look(self._place)
            if self._number not in found or found[self._number].token != self.holder.token:
                return  # another took over, and has removed our file
            if left and self._number == max(found):
                nobody = replace(self.holder, machine="", token="", beat=0.0, batches=left)
                self._place.put(_key(self._number), _json(nobody))
            else:
                self._place.delete(_key(self._number))


def holder(url: str, *, storage_options: Mapping[str, Any] | None = None) -> Holder | None:
    """Who is writing to a store now; None where nobody is (or only a dead process was)."""
    place = Place(url, storage_options)
    with translated(place.url):
        found = current(place)
    return None if found is None or found.dead() else found


def current(place: Place) -> Holder | None:
    """Who holds the lease now, dead or alive; None where nobody does."""
    found = _look(place)
    return found[max(found)] if found else None


def check_token(place: Place, token: str) -> None:
    """The fence: raises `LeaseLost` unless `token` is the lease's."""
    holder = current(place)
    if holder is None and not place.has("zarr.json"):
        raise StoreUnwritable(
            f"the store {place.url} has vanished: bring it back, or make a new store"
        )
    if holder is None or holder.token != token:
        now = "is gone" if holder is None else f"was taken over by {holder}"
        raise LeaseLost(
            f"the lease on {place.url} {now}, so this run stopped writing: "
            "run again when the other is done"
        )


def _look(place: Place) -> dict[int, Holder]:
    """All lease files by number, in order; hardly ever more than one."""
    names = (name.removesuffix(".json") for name in place.names(FOLDER) if name.endswith(".json"))
    found = (
        (number, _read(place, number)) for number in sorted(int(n) for n in names if n.isdigit())
    )
    return {number: holder for number, holder in found if holder is not None}


def _read(place: Place, number: int) -> Holder | None:
    data = place.read(_key(number))
    if data is None:
        return None
    try:
        values = json.loads(data)
        known = {name: values[name] for name in Holder.__slots__}
        return Holder(**{**known, "batches": tuple(known["batches"])})
    except (ValueError, KeyError, TypeError):
        return _UNREADABLE


def _key(number: int) -> str:
    return f"{FOLDER}/{number:06d}.json"


def _json(holder: Holder) -> bytes:
    return json.dumps(asdict(holder), indent=1).encode()


def _machine() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{file.read().strip()}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return f"{socket.gethostname()}/{psutil.boot_time():.0f}"
