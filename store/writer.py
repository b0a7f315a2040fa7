"""The one writer of a store's small columns: holds the lease, grows the arrays, commits.

Features themselves are written by workers, a whole chunk each (`store.chunks`).
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from store import columns
from store.arrays import create_array, layout_of, level, open_group, row_numbers
from store.chunks import erase, mismatched
from store.durable import sweep_partials
from store.errors import LeaseLost, StoreMismatch, translated
from store.layout import COLUMNS, GONE, PENDING, PREVIEW, STEP_COLUMNS, STEP_FILLS
from store.lease import Heartbeat, Lease
from store.place import Options, Place


class Writer:
    """A store that is held for writing. A context manager; leaving it releases the lease.

    `token` goes to the workers (None without a lease). `took_over` says that a dead run's lease
    was taken; `suspects` are the batches it had in flight: check them with `check_batches`, since
    its workers may have written there. Changes are kept in memory until `flush`.
    """

    def __init__(self, place: Place, lease: Lease | None) -> None:
        """Use `acquire`."""
        self._place = place
        self.url = place.url
        self._lock = threading.RLock()
        self.token = lease.holder.token if lease else None
        self.took_over = lease is not None and lease.took_over
        self.suspects = list(lease.holder.batches) if lease else []
        self._in_flight: tuple[int, ...] = ()
        self._group = open_group(place, read_only=False)
        if place.local is not None:
            sweep_partials(place.local)
        self._arrays = level(self._group)
        self._batch = self._arrays["features"].chunks[0]
        self._columns = columns.read_columns(self._arrays, self._arrays["status"].shape[0])
        rows = columns.named_rows(self._columns, self.url)
        if rows < len(self):  # the others are of a run that died while it added them
            self._arrays["status"].resize((rows,))
            self._arrays = level(self._group)
            self._columns = {name: values[:rows] for name, values in self._columns.items()}
        self._steps: dict[tuple[str, int], NDArray[Any]] = {}
        self._dirty: dict[str, set[int]] = defaultdict(set)
        self._table: pd.DataFrame | None = None
        self._heart = Heartbeat(place, lease)

    @classmethod
    def acquire(
        cls,
        url: str,
        *,
        owner: str,
        lease: bool = True,
        wait_s: float = 0.0,
        prepare: Callable[[Place], None] = lambda place: None,
        storage_options: Options = None,
    ) -> Writer:
        """Take the lease of an existing store, and remove what a killed run left.

        prepare: what is to be done under the lease before the columns are read.
        Raises `StoreBusy` (another still holds it after `wait_s` seconds), `StoreNotFound`,
        `StoreTooNew`, `StoreDamaged`, `StoreUnwritable`.
        """
        place = Place(url, storage_options)
        with translated(place.url):
            open_group(place)  # raises for a wrong location before anything is written there
            held = Lease.acquire(place, owner, wait_s=wait_s) if lease else None
            try:
                prepare(place)
                return cls(place, held)
            except BaseException:
                if held is not None:
                    held.release(held.holder.batches)
                raise

    @property
    def attributes(self) -> dict[str, Any]:
        """The group's attributes: spec, fingerprint, classes, batch, software, …"""
        return dict(self._group.attrs)

    @property
    def table(self) -> pd.DataFrame:
        """All per-clip columns as they are now in memory, like `Store.table()`.

        Built again after a change (about a second for a million rows); `column` is cheaper for one.
        """
        with self._lock:
            if self._table is None:
                self._table = columns.frame(self._columns, np.arange(len(self)))
            return self._table

    def column(self, name: str) -> NDArray[Any]:
        """One per-clip column as it is now, a read-only view; strings as objects."""
        view = self._columns[name].view()
        view.flags.writeable = False
        return view

    def __len__(self) -> int:
        return len(self._columns["status"])

    def __repr__(self) -> str:
        return f"Writer({self.url}: {len(self)} rows, lease {'held' if self.token else 'none'})"

    def set(self, rows: ArrayLike, **changes: Any) -> None:
        """Set columns of these rows: one value for all, or one each.

        Only what differs counts as changed: setting a million rows to what they are writes nothing.
        """
        index = row_numbers(rows, len(self), self.url)
        with self._lock:
            for name, values in changes.items():
                new, old = columns.cast(name, values, len(index)), self._columns[name][index]
                differs = (new != old) & ~((new != new) & (old != old))  # NaN stays NaN
                if not differs.any():
                    continue
                self._columns[name][index] = new
                chunks = np.unique(index[differs] // self._arrays[name].chunks[0])
                self._dirty[name].update(chunks.tolist())
                self._table = None

    def mark(self, rows: ArrayLike, status: ArrayLike, reason: ArrayLike = "") -> None:
        """Set the status and the reason of these rows: one for all, or one each."""
        self.set(rows, status=status, reason=reason)

    def put_steps(self, rows: ArrayLike, mask: Any, frame_index: Any, timestamp: Any) -> None:
        """Set the columns with one value per step, each (n, steps) or one value for all."""
        index = row_numbers(rows, len(self), self.url)
        with self._lock, translated(self.url):
            for name, values in zip(STEP_COLUMNS, (mask, frame_index, timestamp), strict=True):
                columns.put_steps(self._arrays, self._steps, name, index, np.asarray(values))

    def append(self, rows: pd.DataFrame) -> NDArray[np.int64]:
        """Add rows, all pending, and return their numbers. Committed when it returns.

        rows: the column `video_id`, and other per-clip columns where known.
        Raises `ValueError` on an id that is empty, given twice, or there already.
        """
        fresh = {"video_id": columns.cast("video_id", rows["video_id"].to_numpy(), len(rows))}
        columns.require_new(fresh["video_id"], self._columns["video_id"])
        self.flush()
        old = len(self)
        if not len(rows):
            return np.arange(0)
        for name in set(COLUMNS) - {"video_id"}:
            if name in rows.columns and name not in ("status", "digest"):
                fresh[name] = columns.cast(name, rows[name].to_numpy(), len(rows))
            else:
                fresh[name] = columns.fill_column(name, len(rows))
        with self._lock, translated(self.url):
            self._heart.check()
            # Column by column: twice a million rows would be twice 200 MB.
            grown = {n: np.concatenate([v, fresh.pop(n)]) for n, v in self._columns.items()}
            columns.commit_growth(self._place, self._arrays, grown, old)
            self._columns, self._table = grown, None
        return np.arange(old, len(self))

    def set_attributes(self, **attributes: Any) -> None:
        """Change attributes of the group at once; `classes` are kept sorted."""
        if "classes" in attributes:
            attributes["classes"] = sorted(set(attributes["classes"]))
        with self._lock, translated(self.url):
            now = dict(self._group.attrs)
            if any(now.get(name) != value for name, value in attributes.items()):
                self._heart.check()
                self._group = self._group.update_attributes(attributes)

    def flush(self) -> None:
        """Commit all changes, `status` last: on a local disk everything else is synced before it.

        Raises `LeaseLost` (nothing was written) or `StoreUnwritable` (nothing is lost: flush again).
        """
        with self._lock, translated(self.url):
            self._heart.check()
            if not self._dirty and not self._steps:
                return
            columns.commit_steps(self._place, self._arrays, self._steps)
            for names in (COLUMNS[:-1], COLUMNS[-1:]):
                columns.commit_columns(self._place, self._arrays, self._columns, self._dirty, names)
            self._steps.clear()
            self._dirty.clear()

    def unmake(self, rows: ArrayLike, *, present: bool = False) -> NDArray[np.int64]:
        """Declare the features of these rows void; returns the rows that are pending now.

        Rows become pending; gone rows stay gone unless their clips are `present` again. Digest and
        frame count are cleared, so that a gone row does not count as ready when its clip returns.
        The new status is committed first: until a row is pending, its digest must stay.
        """
        index = row_numbers(rows, len(self), self.url)
        pending = (self._columns["status"][index] != GONE) | present
        self.mark(index, np.where(pending, PENDING, GONE))
        self.flush()
        self.set(index, frames_decoded=-1, digest=0)
        return np.asarray(index[pending])

    def forget(self, rows: ArrayLike) -> None:
        """Remove these rows' features for good; the rows themselves stay, as `unmake` leaves them.

        Size, time and hash of their clips are cleared too: the same bytes do not count as ready again.
        """
        index = row_numbers(rows, len(self), self.url)
        if not len(index):
            return
        self.unmake(index)
        self.set(index, size_bytes=-1, mtime_ns=-1, sha256="")
        self.put_steps(index, *(STEP_FILLS[name][1] for name in STEP_COLUMNS))
        self.flush()
        erase(self._place, index, token=self.token)

    def keep_previews(self) -> None:
        """Add the array of small pictures to a store that has none (`store.write_previews`)."""
        with self._lock, translated(self.url):
            if PREVIEW not in self._arrays:
                self._heart.check()
                layout = layout_of(self._arrays["features"])
                where = self._group.store_path
                self._arrays[PREVIEW] = create_array(where, PREVIEW, layout, len(self))

    def rows_of(self, batch: int) -> range:
        """The rows of one batch (the last may be short)."""
        return range(batch * self._batch, min((batch + 1) * self._batch, len(self)))

    def in_flight(self, batches: Iterable[int]) -> None:
        """Record in the lease which batches may be written to from now on, besides the `suspects`."""
        with self._lock, translated(self.url):
            self._in_flight = tuple(batches)
            self._heart.record({*self._in_flight, *self.suspects})

    def suspect(self, batch: int) -> None:
        """Record that a late worker may still write a batch, until `check_batches` has seen it."""
        with self._lock:
            self.suspects = sorted({*self.suspects, batch})

    def check_batches(self, batches: Iterable[int]) -> NDArray[np.int64]:
        """Rows in these batches that hold features (ready, or gone) which do not match their digests.

        Reads the chunks; the caller marks such rows pending. Batches past the end are ignored.
        """
        asked = sorted(set(batches))
        digest = self._columns["digest"]
        kept = np.flatnonzero(columns.holds_features(self._columns["status"], digest))
        kept = kept[np.isin(kept // self._batch, asked)]
        bad = mismatched(self._place, kept, digest[kept])
        left = [batch for batch in self.suspects if batch not in asked]
        if left != self.suspects:
            self.suspects = left
            self.in_flight(self._in_flight)
        return bad

    def release(self) -> None:
        """Stop the heartbeat and release the lease. Never raises: the lease would expire anyway.

        Batches still in flight (and suspects not yet checked) stay recorded for the next writer. Where
        there are none, what a worker left that was killed is removed: nobody writes any more.
        """
        if self._place.local is not None and not self._in_flight:
            with suppress(LeaseLost, OSError):
                self._heart.check()
                sweep_partials(self._place.local)
        self._heart.stop({*self._in_flight, *self.suspects})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


def add_test_set(writer: Writer, name: str, values: Mapping[str, Any]) -> None:
    """Write a named test set into the store, for good: name → what it is (`docs/format.md`).

    Raises `StoreMismatch` where the name is taken.
    """
    sets = writer.attributes.get("test_sets", {})
    if name in sets:
        raise StoreMismatch(
            f"{writer.url} has a test set {name} already, and one is for good: choose another name"
        )
    writer.set_attributes(test_sets=sets | {name: dict(values)})
