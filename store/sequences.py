"""What a reader returns, in which order, and how rows of `features` are read.

They are read straight into the caller's array and digested while they are in the cache. Zarr decodes a
chunk into a buffer and copies it out, and picking rows from that is a copy more. Our features are stored
as they are (no codec but `bytes`), so where a chunk lies in a local file its rows are read from there
into place. Everything else (object stores, a store that others have compressed) goes through Zarr.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.core.buffer.cpu import NDBuffer

from store.arrays import by_chunk, chunk_key, is_plain
from store.errors import decoding
from store.place import Place

CHUNKS_IN_WINDOW = 8
"""Chunks that a shuffled stream mixes at once: 84 MB of InceptionV3 features at 64 rows each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequences:
    """Masked sequences of some clips.

    `features` (n, steps, *shape) of the store's dtype, zero where `mask` (n, steps) is false;
    `rows` (n,) int64 are their numbers in the store.
    """

    features: NDArray[Any]
    mask: NDArray[np.bool_]
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return (
            f"Sequences(features {self.features.shape} {self.features.dtype}, "
            f"mask {self.mask.shape} {self.mask.mean() if self.mask.size else 0:.0%} real, "
            f"rows {self.rows.shape})"
        )

    def take(self, index: Any) -> Sequences:
        """The sequences at these positions (a slice or an index array)."""
        return Sequences(
            features=self.features[index], mask=self.mask[index], rows=self.rows[index]
        )


def concatenate(parts: list[Sequences]) -> Sequences:
    """One value of several, in order."""
    if len(parts) == 1:
        return parts[0]
    return Sequences(
        features=np.concatenate([part.features for part in parts]),
        mask=np.concatenate([part.mask for part in parts]),
        rows=np.concatenate([part.rows for part in parts]),
    )


def windows(
    rows: NDArray[np.int64],
    batch: int,
    *,
    shuffle: bool,
    seed: int,
    epoch: int,
    share: tuple[int, int] = (0, 1),
) -> Iterator[NDArray[np.int64]]:
    """The rows in the order of a stream, cut into windows of at most eight chunks each.

    Unshuffled, the given order. Shuffled, the chunks in random order and the rows of each window
    mixed: every chunk is then read once. `share`: (k, n) takes each n-th chunk from the k-th on. A
    pure function of its arguments. Raises `ValueError` for a share that is none.
    """
    first, of = share
    if not 0 <= first < of:
        raise ValueError(f"a share is {share}: give (k, n) with k from 0 up to n - 1")
    if shuffle:
        rng = np.random.default_rng([seed, epoch])
        chunks = [rows[at] for _, at in by_chunk(rows, batch)]
        order = rng.permutation(len(chunks))[first::of]
        for start in range(0, len(order), CHUNKS_IN_WINDOW):
            window = [chunks[i] for i in order[start : start + CHUNKS_IN_WINDOW]]
            yield rng.permutation(np.concatenate(window))
        return
    if of > 1:
        _, numbers = np.unique(rows // batch, return_inverse=True)
        rows = rows[numbers % of == first]
    start, seen = 0, set[int]()
    for i, chunk in enumerate((rows // batch).tolist()):
        if chunk not in seen and len(seen) == CHUNKS_IN_WINDOW:
            yield rows[start:i]
            start, seen = i, set()
        seen.add(chunk)
    if start < len(rows):
        yield rows[start:]


_PIECE_BYTES = 1 << 20
"""Read at a time: what stays in a core's cache until its digests are computed."""
_SCATTERED_BYTES = 1 << 14
"""Scattered rows that are smaller than this are picked from the whole chunk instead."""


class FeatureRows:
    """Reads rows of one store's `features` array. Safe to share between threads."""

    def __init__(self, place: Place, features: zarr.Array[Any]) -> None:
        self._place = place
        self._array = features
        self._size: int = features.chunks[0]
        self._row_bytes = int(np.prod(features.shape[1:])) * features.dtype.itemsize
        self._plain = is_plain(features)

    def read(
        self, rows: NDArray[np.int64], out: NDArray[Any], at: NDArray[np.int64]
    ) -> NDArray[np.uint32]:
        """Read rows of one chunk into `out[at]`; returns their digests, (n,) uint32.

        rows: their numbers, ascending · out: (m, steps, *shape), C-contiguous, of the array's dtype ·
        at: where in it each row goes (n,).

        Raises `StoreDamaged` if the chunk cannot be decoded.
        """
        start = int(rows[0]) // self._size * self._size
        runs = list(_runs(rows, at))
        if len(runs) == 1 or self._row_bytes >= _SCATTERED_BYTES:
            digests = self._from_file(rows - start, runs, start // self._size, self._raw(out), at)
            if digests is not None:
                return digests
        if len(runs) == 1 and start == rows[0]:
            first = int(at[0])
            decode_into(self._array, start, out[first : first + len(rows)])
        else:
            out[at] = self._chunk(start)[rows - start]
        return _digests(self._raw(out), at)

    def _chunk(self, start: int) -> NDArray[Any]:
        """All rows of the chunk that begins at `start`."""
        rows = np.arange(min(self._size, self._array.shape[0] - start))
        chunk = np.empty((len(rows), *self._array.shape[1:]), self._array.dtype)
        whole = [(0, len(rows))]
        if self._from_file(rows, whole, start // self._size, self._raw(chunk), rows) is None:
            decode_into(self._array, start, chunk)
        return chunk

    def _raw(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        return values.view(np.uint8).reshape(len(values), self._row_bytes)

    def _from_file(
        self,
        places: NDArray[np.int64],
        runs: list[tuple[int, int]],
        chunk: int,
        raw: NDArray[np.uint8],
        at: NDArray[np.int64],
    ) -> NDArray[np.uint32] | None:
        """Read runs of a chunk's rows, counted from its first; their digests, or None: ask Zarr."""
        span = self._place.span(chunk_key(self._array, chunk)) if self._plain else None
        if span is None or span[2] != self._size * self._row_bytes:
            return None  # never written: zeros; cut short: Zarr says so
        path, offset, _ = span
        piece = max(1, _PIECE_BYTES // self._row_bytes)
        digests = np.zeros(len(at), np.uint32)
        try:
            with open(path, "rb", buffering=0) as file:
                for first, last in runs:
                    file.seek(offset + int(places[first]) * self._row_bytes)
                    for begin in range(first, last, piece):
                        end = min(begin + piece, last)
                        rows = raw[int(at[begin]) : int(at[end - 1]) + 1]
                        if not _fill(file, rows.reshape(-1).data):
                            return None
                        digests[begin:end] = _digests(raw, at[begin:end])
        except FileNotFoundError:
            return None
        return digests


def decode_into(array: zarr.Array[Any], start: int, out: NDArray[Any]) -> None:
    """Decode rows of an array from `start` into `out`, as many as it has room for.

    Raises `StoreDamaged`, naming the rows, if their chunk cannot be decoded.
    """
    with decoding(f"rows {start} to {start + len(out) - 1} of {array.store_path}"):
        array.get_basic_selection(
            slice(start, start + len(out)), out=NDBuffer.from_numpy_array(out)
        )


def _runs(rows: NDArray[np.int64], at: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Spans of positions whose rows are neighbours, in the chunk and where they go."""
    breaks = np.flatnonzero((np.diff(rows) != 1) | (np.diff(at) != 1)) + 1
    ends = [*breaks.tolist(), len(rows)]
    yield from zip([0, *ends[:-1]], ends, strict=True)


def _fill(file: Any, target: memoryview) -> bool:
    """Read until `target` is full; False at the file's end."""
    done = 0
    while done < len(target):
        read = file.readinto(target[done:])
        if not read:
            return False
        done += read
    return True


def _digests(raw: NDArray[np.uint8], at: NDArray[np.int64]) -> NDArray[np.uint32]:
    values = (google_crc32c.value(raw[i]) for i in at.tolist())
    return np.fromiter(values, np.uint32, len(at))
