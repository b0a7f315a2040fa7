"""The batches of a run: cut from its rows, given to workers, taken back when they end or are lost.

Dask keeps a task that is restricted to workers that have left for ever, whatever other workers there
are. So each batch is kept with the workers that it was given to, and taken back when none is left.
"""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prefect_dask import DaskTaskRunner

import store
from flows.extract.batches import extract_batch
from flows.extract.cluster import gpu_share
from flows.extract.hashes import FileHashes
from flows.extract.values import Batch, Clip
from flows.extract.worker_checks import within
from flows.extract.workforce import Workforce
from pipeline.features.stage import Stage
from pipeline.spans import BOUNDS, Span
from store import READY, Writer

_PREFETCH = 1  # batches that wait at a worker, so that it never waits for the flow
_CANCEL_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    batch: Batch
    future: Any
    workers: frozenset[str] | None  # None: any worker may have it


_Key = tuple[int, int]


def _key(batch: Batch) -> _Key:
    """Tells a batch from all others of the run."""
    return batch.store, batch.number


def batches_of(
    rows: Sequence[int],
    writer: Writer,
    stage: Stage,
    paths: Callable[[int], str],
    run: str,
    *,
    hashes: FileHashes | None = None,
) -> Iterator[Batch]:
    """Yield the batches that hold these rows, in order, with the digests of the rows that stay.

    hashes: takes those of files that have rows in several batches; without, each batch does.
    """
    cut = BatchCutter(writer, stage, paths, run, hashes=hashes)
    yield from (cut.batch(number, members) for number, members in cut.chunks(rows).items())


class BatchCutter:
    """Cuts the batches of one store from the rows that are to be made. Arguments as for `batches_of`."""

    def __init__(
        self,
        writer: Writer,
        stage: Stage,
        paths: Callable[[int], str],
        run: str,
        *,
        hashes: FileHashes | None = None,
    ) -> None:
        self._writer, self._stage, self._paths = writer, stage, paths
        self._run, self._hashes = run, hashes
        self._columns = {
            name: writer.column(name)
            for name in ("status", "digest", "size_bytes", "video_id", *BOUNDS)
        }

    def chunks(self, rows: Sequence[int] | NDArray[np.int64]) -> dict[int, NDArray[np.int64]]:
        """The batches that hold some of these rows, by number, with those rows; in order."""
        wanted = np.sort(np.asarray(rows, dtype=np.int64))
        numbers = wanted // self._writer.attributes["batch"]
        if self._hashes is not None:
            self._hashes.begin(_in_several(wanted, numbers, self._paths))
        each, begins = np.unique(numbers, return_index=True)
        parts = np.split(wanted, begins[1:]) if len(each) else []
        return dict(zip(each.tolist(), parts, strict=True))

    def batch(self, number: int, rows: NDArray[np.int64]) -> Batch:
        """The batch of this number, in which these rows are made, as the store is now."""
        column, hashes, members = self._columns, self._hashes, self._writer.rows_of(number)
        make = rows.tolist()
        chosen = set(make)
        clips = tuple(
            Clip(
                row=row,
                id=str(column["video_id"][row]),
                path=(path := self._paths(row)),
                size_bytes=int(column["size_bytes"][row]),
                span=Span.of(*(column[name][row].item() for name in BOUNDS)),
                sha256="" if hashes is None else hashes.known(path),
            )
            for row in make
        )
        status, digest = column["status"], column["digest"]
        return Batch(
            number=number,
            url=self._writer.url,
            first_row=members.start,
            rows=len(members),
            clips=clips,
            # A gone row keeps its features too: it is ready again when its bytes come back.
            kept={
                row: int(digest[row])
                for row in members
                if row not in chosen and status[row] in (READY, store.GONE) and digest[row] != 0
            },
            run=self._run,
            token=self._writer.token,
            stage=self._stage,
        )


def _in_several(
    rows: np.ndarray, batches: np.ndarray, path_of: Callable[[int], str]
) -> Iterator[str]:
    """The files that have rows in more than one batch, in the order in which they are needed."""
    first: dict[str, int] = {}
    found: set[str] = set()
    for row, batch in zip(rows.tolist(), batches.tolist(), strict=True):
        path = path_of(row)
        if first.setdefault(path, batch) != batch and path not in found:
            found.add(path)
            yield path


class Dispatch:
    """Gives batches out, and takes back those that have ended or are lost.

    writers: of the run's stores. gpu: "auto", "require" or "never", as in the settings. `held`: batches
    that wait for room. Used by the flow's thread alone.
    """

    def __init__(
        self, writers: Sequence[Writer], runner: DaskTaskRunner, workforce: Workforce, *, gpu: str
    ) -> None:
        self._writers, self._runner, self._workforce = writers, runner, workforce
        self._resources = gpu_share(runner.client, gpu)
        self._given: dict[_Key, _Given] = {}
        self.held: deque[Batch] = deque()
        self._taken: _Given
        self._ended: queue.Queue[tuple[Batch, Any]] = queue.Queue()
        self._given_at = time.monotonic()

    def __len__(self) -> int:
        """How many batches are given out."""
        return len(self._given)

    def numbers(self, store: int) -> list[int]:
        """The batches of one of the stores that may be written to now."""
        return [
            part.number
            for given in self._given.values()
            for part in given.batch.parts
            if part.store == store
        ]

    @property
    def has_room(self) -> bool:
        """Whether the workers can be given another batch; never while no worker takes part."""
        workforce = self._workforce
        room = workforce.threads + _PREFETCH * workforce.count
        return len(self._given) < room

    @property
    def unmoved_for_s(self) -> float:
        """For how long workers have been there and idle, although batches are given out to them."""
        if not self._given:
            return 0.0
        return min(self._workforce.idle_for_s, time.monotonic() - self._given_at)

    def submit(self, batch: Batch) -> None:
        """Give a batch to the workers that take part; one of them at least does."""
        import dask

        # Recorded before a worker can write.
        self._given[_key(batch)] = _Given(batch=batch, future=None, workers=None)
        for number in {part.store for part in batch.parts}:
            self._writers[number].in_flight(self.numbers(number))
        wishes: dict[str, Any] = {"resources": self._resources} if self._resources else {}
        only = self._workforce.only
        if only is not None:  # some do not answer: a batch must not wait for them
            wishes |= {"workers": only}
        with dask.annotate(**wishes):
            future = self._runner.submit(extract_batch, {"batch": batch})
        self._given[_key(batch)] = _Given(
            batch=batch, future=future, workers=None if only is None else frozenset(only)
        )
        self._given_at = time.monotonic()
        future.wrapped_future.add_done_callback(lambda done: self._ended.put((batch, future)))

    def next_ended(self, wait_s: float) -> tuple[Batch, Any] | None:
        """A batch that has ended, with its future; None where none does in time."""
        try:
            batch, future = self._ended.get(timeout=wait_s)
        except queue.Empty:
            return None
        given = self._given.get(_key(batch))
        if given is None or given.batch is not batch:  # it was taken back before
            return None
        self._taken = self._given.pop(_key(batch))
        return batch, future

    def put_back(self) -> None:
        """The batch that `next_ended` gave has no result: its worker left before it was fetched.

        Dask runs it again if another worker may; else it is lost, once its workers have left.
        """
        taken = self._taken
        self._given[_key(taken.batch)] = taken
        self._ended.put((taken.batch, taken.future))

    def take_back_lost(self) -> list[Batch]:
        """The batches that were given to certain workers of which none is left."""
        gone = [
            key
            for key, given in self._given.items()
            if given.workers is not None and not self._workforce.has_any(given.workers)
        ]
        return self._take_back(gone)

    def take_back_all(self) -> list[Batch]:
        """Every batch that is given out; a worker that has one may write it all the same."""
        return self._take_back(list(self._given))

    def suspect(self, batch: Batch) -> None:
        """Record that a late worker may still write this batch, and those beside it."""
        for part in batch.parts:
            self._writers[part.store].suspect(part.number)

    def _take_back(self, keys: list[_Key]) -> list[Batch]:
        given = [self._given.pop(key) for key in keys]
        for item in given:
            self.suspect(item.batch)
        futures = [item.future.wrapped_future for item in given if item.future is not None]
        if futures:
            within(_CANCEL_S, lambda: self._runner.client.cancel(futures))
        return [item.batch for item in given]


def worker_died(error: BaseException) -> bool:
    """Whether a batch failed because its worker, or the connection to it, has died."""
    from concurrent.futures import CancelledError

    from distributed import KilledWorker
    from distributed.comm import CommClosedError

    return isinstance(error, KilledWorker | CommClosedError | CancelledError | ConnectionError)
