"""The lease: one run at a time writes to a store.

Each acquisition is a file of its own, `status/.lease/NNNNNN.json`, made by exclusive creation; the
highest number is the holder. A takeover creates the next number, so a writer that was taken for dead
can only refresh its own, lower file and sees that it was replaced. (The files lie inside the folder
of `status`, because Zarr warns of every unknown name directly in a group.)
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace

from store import liveness
from store.errors import LeaseLost, StoreBusy, StoreUnwritable, translated, vanished
from store.liveness import Holder, Watch
from store.place import Options, Place

log = logging.getLogger(__name__)

FOLDER = "status/.lease"
BEAT_S = 10.0
_LOOK_S = 1.0
_ROUNDS = 20
_random = random.SystemRandom()  # without a state that threads share or a fork copies


class Lease:
    """A held lease: `acquire` it, `beat` to refresh it, `check` it before writing, `release` it."""

    def __init__(self, place: Place, number: int, holder: Holder, *, took_over: bool) -> None:
        self._place = place
        self._number = number
        self._lock = threading.Lock()  # the beating thread and the writer's own calls
        self._released = False
        self.holder = holder
        self.took_over = took_over

    @classmethod
    def acquire(cls, place: Place, owner: str, *, wait_s: float = 0.0) -> Lease:
        """Take the lease. Taken over from a dead holder, it still records that one's batches.

        A holder on another host is watched for a new beat, for a minute at most, whatever `wait_s`
        is. Raises `StoreBusy` if another still holds it after `wait_s` seconds, and `StoreUnwritable`
        if the location cannot create exclusively.
        """
        until = time.monotonic() + wait_s
        watch, warned = Watch(), False
        while True:
            taken = cls._try(place, owner, watch)
            if not isinstance(taken, Holder):
                return taken
            alive = watch.alive(taken)
            if alive is False:  # its minute is over
                continue
            pause = min(_LOOK_S, liveness.DEAD_AFTER_S / 4)
            if alive:
                left = until - time.monotonic()
                if left <= 0:
                    raise StoreBusy(
                        f"the store {place.url} is being written by {taken}: wait for it, stop it, "
                        "or use another store",
                        taken,
                    )
                pause = min(pause, left)
            elif not warned:
                log.warning(
                    "the store %s has a lease of %s: waiting up to %.0f s for a sign of life",
                    *(place.url, taken, liveness.DEAD_AFTER_S),
                )
                warned = True
            time.sleep(pause)

    @classmethod
    def _try(cls, place: Place, owner: str, watch: Watch) -> Lease | Holder:
        for _ in range(_ROUNDS):
            seen = _look(place)
            watch.look(seen.values())
            alive = [other for other in seen.values() if watch.alive(other) is not False]
            if alive:
                return alive[-1]
            before = seen[max(seen)] if seen else None
            me = Holder.me(owner)
            if before is not None:
                me = replace(me, batches=before.batches)  # until they are checked, they are suspect
            number = max(seen, default=0) + 1
            try:
                ours = cls._create(place, number, me, seen)
            except BaseException:
                # The file may exist although the response was lost: it must not block others.
                me.give_up()
                with suppress(Exception):
                    if Holder.from_json(place.read(_key(number)) or b"").token == me.token:
                        place.delete(_key(number))
                raise
            if ours:
                for old in seen:
                    with suppress(Exception):  # dead and lower: the next run removes it
                        place.delete(_key(old))
                return cls(place, number, me, took_over=before is not None)
            time.sleep(_random.uniform(0.01, 0.1))
        raise StoreUnwritable(
            f"the lease of the store {place.url} could not be made in {_ROUNDS} tries, each met "
            "another run's or the service's conflict: run again"
        )

    @staticmethod
    def _create(place: Place, number: int, me: Holder, seen: Mapping[int, Holder]) -> bool:
        """Whether the lease of this number is ours now; False: try again."""
        data = me.to_json()
        if not place.put_new(_key(number), data):
            return False  # another was first
        now = _look(place)
        mine = now.pop(number, None)
        if mine == me and all(seen.get(n) == other for n, other in now.items()):
            # Any process that creates a number from now on sees ours and steps back.
            if not place.creates_exclusively(_key(number), data):
                raise StoreUnwritable(
                    f"the store {place.url} is on a service without exclusive creation, so "
                    "two runs could write at once: use another service, or --no-lease and "
                    "one run only"
                )
            return True
        # Someone created a number between our look and our creation (numbers are used again,
        # so the files are compared whole). Both step back; one comes first.
        if mine == me:
            place.delete(_key(number))
        return False

    def check(self) -> None:
        """Raise `LeaseLost` unless the lease is still ours."""
        check_token(self._place, self.holder.token)

    def beat(self, batches: Iterable[int] | None = None) -> None:
        """Check and refresh the lease, and record the batches in flight where given."""
        with self._lock:
            if self._released:
                return
            self.check()
            kept = self.holder.batches if batches is None else tuple(sorted(set(batches)))
            self.holder = replace(self.holder, beat=time.time(), batches=kept)
            self._place.put(_key(self._number), self.holder.to_json())

    def release(self, suspects: Iterable[int] = ()) -> None:
        """Release the lease; only our own file is ever touched.

        Batches that may still be written to stay recorded in a lease without a holder, so that the next
        writer checks them.
        """
        left = tuple(sorted(set(suspects)))
        with self._lock:
            self._released = True
            self.holder.give_up()
            seen = _look(self._place)
            if self._number not in seen or seen[self._number].token != self.holder.token:
                return  # another took over, and has removed our file
            if left and self._number == max(seen):
                unheld = replace(self.holder, machine="", token="", beat=0.0, batches=left)
                self._place.put(_key(self._number), unheld.to_json())
            else:
                self._place.delete(_key(self._number))


def holder(url: str, *, storage_options: Options = None) -> Holder | None:
    """Who is writing to a store now; None without a holder, or if its process is known to be dead.

    A holder on another host is returned without a check of its process.
    """
    place = Place(url, storage_options)
    with translated(place.url):
        holder = current(place)
    return None if holder is None or holder.alive() is False else holder


def current(place: Place) -> Holder | None:
    """Who holds the lease now, dead or alive; None without a holder."""
    seen = _look(place)
    return seen[max(seen)] if seen else None


def check_token(place: Place, token: str) -> None:
    """The fence: raises `LeaseLost` unless `token` is the lease's."""
    holder = current(place)
    if holder is None and not place.has("zarr.json"):
        raise vanished(place.url)
    if holder is None:
        raise LeaseLost(
            f"the lease on {place.url} was removed while this run held it, so it stopped writing: "
            "run again"
        )
    if holder.token != token:
        raise LeaseLost(
            f"the lease on {place.url} was taken over by {holder}, so this run stopped writing: "
            "run again when the other is done"
        )


def _look(place: Place) -> dict[int, Holder]:
    """All lease files by number, in order; rarely more than one."""
    names = (name.removesuffix(".json") for name in place.names(FOLDER) if name.endswith(".json"))
    files = {n: place.read(_key(n)) for n in sorted(int(n) for n in names if n.isdigit())}
    return {n: Holder.from_json(data) for n, data in files.items() if data is not None}


def _key(number: int) -> str:
    return f"{FOLDER}/{number:06d}.json"


class Heartbeat:
    """A lease that beats every ten seconds until it is stopped or lost.

    Without a lease (`--no-lease`) it only checks that the store is still there.
    """

    def __init__(self, place: Place, lease: Lease | None) -> None:
        self._place = place
        self._lease = lease
        self._lost: LeaseLost | None = None
        self._stopped = threading.Event()
        if lease is not None:
            # A daemon, so that a process can end without releasing.
            threading.Thread(
                target=self._run, args=(lease,), name="store-lease", daemon=True
            ).start()

    def check(self) -> None:
        """Read the lease again; raises `LeaseLost` or `StoreUnwritable`."""
        if self._lost is not None:
            raise LeaseLost(str(self._lost))
        if self._stopped.is_set():
            raise LeaseLost(
                f"this writer of {self._place.url} was released: acquire another to write again"
            )
        if self._lease is not None:
            self._lease.check()
        elif not self._place.has("zarr.json"):
            raise vanished(self._place.url)

    def record(self, batches: Iterable[int]) -> None:
        """Write into the lease which batches may be written to from now on."""
        if self._lease is not None:
            self.check()
            self._lease.beat(batches)

    def stop(self, suspects: Iterable[int]) -> None:
        """Stop beating and release. Never raises: an unreleased lease of a dead run is taken over.

        `suspects` are batches that may still be written to; the next writer checks them.
        """
        if self._stopped.is_set():
            return
        self._stopped.set()
        try:
            if self._lease is not None:
                self._lease.release(suspects)
        except Exception as error:
            log.warning("the lease of %s could not be removed: %s", self._place.url, error)

    def _run(self, lease: Lease) -> None:
        while not self._stopped.wait(BEAT_S):
            try:
                lease.beat()
            except LeaseLost as lost:
                self._lost = lost
                return
            except Exception as error:  # a location that does not answer now may answer later
                log.warning("the lease of %s could not be refreshed: %s", self._place.url, error)
