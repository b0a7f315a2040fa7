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
from typing import Any

from store import liveness
from store.errors import LeaseLost, StoreBusy, StoreUnwritable, translated
from store.liveness import Holder, Watch
from store.place import Place

log = logging.getLogger(__name__)

FOLDER = "status/.lease"
BEAT_S = 10.0
_LOOK_S = 1.0
_ROUNDS = 20
_random = random.SystemRandom()  # without a state that threads share or a fork copies


class Lease:
    """A held lease: `acquire` it, `beat` to refresh it, `check` it before writing, `release` it."""

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
            unsure = alive is None
            if unsure and not warned:
                log.warning(
                    "the store %s has a lease of %s: waiting up to %.0f s for a sign of life",
                    *(place.url, taken, liveness.DEAD_AFTER_S),
                )
                warned = True
            if not unsure and time.monotonic() >= until:
                raise StoreBusy(
                    f"the store {place.url} is being written by {taken}: wait for it, stop it, "
                    "or use another store",
                    taken,
                )
            pause = _LOOK_S if unsure else min(_LOOK_S, max(0.0, until - time.monotonic()))
            time.sleep(min(pause, liveness.DEAD_AFTER_S / 4))

    @classmethod
    def _try(cls, place: Place, owner: str, watch: Watch) -> tuple[Lease, Holder | None] | Holder:
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
                    _delete_own(place, number, me)
                raise
            if ours:
                for old in seen:
                    with suppress(Exception):  # dead and lower: the next run removes it
                        place.delete(_key(old))
                return cls(place, number, me), before
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


def holder(url: str, *, storage_options: Mapping[str, Any] | None = None) -> Holder | None:
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
        raise StoreUnwritable(
            f"the store {place.url} has vanished: bring it back, or make a new store"
        )
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
    numbers = sorted(int(name) for name in names if name.isdigit())
    holders = ((number, _read(place, number)) for number in numbers)
    return {number: holder for number, holder in holders if holder is not None}


def _read(place: Place, number: int) -> Holder | None:
    data = place.read(_key(number))
    return None if data is None else Holder.from_json(data)


def _delete_own(place: Place, number: int, holder: Holder) -> None:
    there = _read(place, number)
    if there is not None and there.token == holder.token:
        place.delete(_key(number))


def _key(number: int) -> str:
    return f"{FOLDER}/{number:06d}.json"
