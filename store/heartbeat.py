"""Refreshes a lease from a thread of its own, and remembers when it was lost."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable

from store.errors import LeaseLost, StoreUnwritable
from store.lease import BEAT_S, Lease
from store.place import Place

log = logging.getLogger(__name__)


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
            threading.Thread(target=self._run, name="store-lease", daemon=True).start()

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
            raise StoreUnwritable(
                f"the store {self._place.url} has vanished: bring it back, or make a new store"
            )

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
        if self._lease is not None:
            try:
                self._lease.release(suspects)
            except Exception as error:
                log.warning("the lease of %s could not be removed: %s", self._place.url, error)

    def _run(self) -> None:
        while not self._stopped.wait(BEAT_S):
            try:
                assert self._lease is not None
                self._lease.beat()
            except LeaseLost as lost:
                self._lost = lost
                return
            except Exception as error:  # a location that does not answer now may answer later
                log.warning("the lease of %s could not be refreshed: %s", self._place.url, error)
