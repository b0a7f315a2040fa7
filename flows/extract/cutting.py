"""The batches of a store that a run makes, cut from its rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

import store
from flows.extract.hashes import FileHashes
from flows.extract.values import Batch, Clip
from pipeline.features.stage import Stage
from pipeline.spans import BOUNDS, Span
from store import READY, Writer


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
