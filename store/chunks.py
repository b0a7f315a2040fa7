"""One batch is one chunk of features, and one of previews, read and written whole; workers call this.

`preview` (video, picture, byte) uint8: three JPEG files a clip, each padded with zeros, zeros alone
where there is none. No digest and no fingerprint covers them, and they are optional: a store without
them, or with damaged ones, is complete.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numpy.typing import ArrayLike, NDArray
from zarr.storage import LocalStore, StorePath

from store.arrays import by_chunk, chunk_key, is_plain, open_arrays, open_group, span
from store.durable import write_durably
from store.errors import LeaseLost, StoreDamaged, StoreError, decoding, translated, vanished
from store.layout import PREVIEW
from store.lease import check_token
from store.place import Place


def row_digests(features: NDArray[Any]) -> NDArray[np.uint32]:
    """CRC-32C of each row's bytes (C order, little endian): (n, …) any dtype → (n,) uint32."""
    little = features.astype(features.dtype.newbyteorder("<"), copy=False)
    rows = np.ascontiguousarray(little).view(np.uint8).reshape(len(features), -1)
    return np.fromiter((google_crc32c.value(row) for row in rows), np.uint32, len(rows))


def decode(array: zarr.Array[Any], start: int, stop: int) -> NDArray[Any]:
    """Rows of an array; `StoreDamaged` names them where their chunk cannot be decoded."""
    with decoding(f"rows {start} to {stop - 1} of {array.store_path}"):
        return np.asarray(array[start:stop])


def read_batch(url: str, batch: int) -> NDArray[Any]:
    """The features of one chunk's rows, (n, steps, *shape), n ≤ the batch size.

    A chunk that was never written reads as zeros. Raises `StoreDamaged` where the bytes cannot be
    decoded and `StoreUnwritable` where the place cannot be read.
    """
    place = Place(url)
    with translated(place.url):
        features = _open(place, read_only=True)
        return decode(features, *_bounds(features, batch, place))


def mismatched(
    place: Place, rows: NDArray[np.int64], digests: NDArray[np.uint32]
) -> NDArray[np.int64]:
    """Those of these rows whose features do not match their digests, or cannot be decoded."""
    if not len(rows):
        return rows
    sound = np.zeros(len(rows), bool)
    with translated(place.url):
        features = _open(place, read_only=True)
        for chunk, at in by_chunk(rows, features.chunks[0]):
            start, stop = span(features, chunk)
            with suppress(StoreDamaged):
                values = decode(features, start, stop)[rows[at] - start]
                sound[at] = row_digests(values) == digests[at]
    return rows[~sound]


def write_batch(
    url: str, batch: int, features: NDArray[Any], *, token: str | None
) -> NDArray[np.uint32]:
    """Write one whole chunk and return the digests of its rows, (n,) uint32.

    features: all existing rows of the chunk, (n, steps, *shape), new and kept ones alike.
    token: of the lease, which is read again just before writing; None for a run without a lease.
    On a local disk file and folder are synced before this returns.
    Raises `LeaseLost` if another run holds the lease: discard the work. Raises `StoreUnwritable` if
    the location is full, forbidden or gone.
    """
    place = Place(url)
    with translated(place.url):
        array = _open(place, read_only=False)
        start, stop = _bounds(array, batch, place)
        if features.shape != (stop - start, *array.shape[1:]):
            raise ValueError(
                f"batch {batch} has {stop - start} rows of {array.shape[1:]} and {features.shape} "
                "was given: pass the whole chunk"
            )
        if features.dtype != array.dtype:
            raise ValueError(f"features are {features.dtype}, the store's are {array.dtype}")
        features = np.ascontiguousarray(features)
        digests = row_digests(features)
        _write_chunk(place, array, batch, features, token)
    return digests


def write_previews(url: str, pictures: Mapping[int, Sequence[bytes]], *, token: str | None) -> None:
    """Set the pictures of these rows (row → up to three JPEG files); other rows keep theirs.

    Whole chunks are read and written, so the rows must be those of one's own batch. Does nothing
    in a store without previews. Raises `ValueError` on a picture that is too large for its place,
    `LeaseLost` and `StoreUnwritable` as `write_batch` does.
    """
    place = Place(url)
    with translated(place.url):
        array = open_arrays(open_group(place, read_only=False), (PREVIEW,)).get(PREVIEW)
        if array is not None:
            rows = np.array(sorted(pictures), dtype=np.int64)
            rows = rows[rows < array.shape[0]]
            _set_rows(
                place, array, rows, lambda row: _packed(pictures[row], array.shape[1:]), token
            )


def read_previews(url: str, rows: ArrayLike) -> list[list[bytes]]:
    """The pictures of these rows, in their order: JPEG files, oldest frame first; [] for none.

    A store made without previews has none; nor has a chunk that cannot be decoded.
    """
    index = np.atleast_1d(np.asarray(rows, dtype=np.int64))
    pictures: list[list[bytes]] = [[] for _ in index]
    place = Place(url)
    with translated(place.url):
        array = open_arrays(open_group(place), (PREVIEW,)).get(PREVIEW)
        if array is None:
            return pictures
        for chunk, places in by_chunk(index, array.chunks[0]):
            start, stop = span(array, chunk)
            try:
                values = decode(array, start, stop)
            except StoreDamaged:
                continue
            for at in places[index[places] < stop].tolist():
                # A JPEG ends with 0xD9, so padding is no part of it.
                files = [file.tobytes().rstrip(b"\0") for file in values[index[at] - start]]
                pictures[at] = [data for data in files if data]
    return pictures


def erase(place: Place, rows: NDArray[np.int64], *, token: str | None) -> None:
    """Set the features and previews of these rows to zero. They must be committed as not ready."""
    with translated(place.url):
        group = open_group(place, read_only=False)
        for array in open_arrays(group, ("features", PREVIEW)).values():
            _set_rows(place, array, rows, lambda row: 0, token)


def _open(place: Place, *, read_only: bool) -> zarr.Array[Any]:
    try:
        return _opened(place, read_only=read_only)
    except (OSError, StoreError):
        raise
    except Exception as error:  # whatever Zarr's code meets in metadata that make no sense
        raise StoreDamaged(
            f"{place.url}/features/zarr.json is damaged ({type(error).__name__}): restore it from a "
            "copy of the store"
        ) from error


def _opened(place: Place, *, read_only: bool) -> zarr.Array[Any]:
    store = place.zarr(read_only=read_only)
    if isinstance(store, LocalStore):
        # Zarr opens an array, reads and writes in a thread of its own: whoever waits for it waits for the
        # interpreter's lock at each step, beside a busy thread for longer than the bytes take.
        data = place.read("features/zarr.json")
        if data is None:
            raise vanished(place.url)
        with suppress(ValueError, KeyError, TypeError):  # Zarr says what is wrong with it
            return zarr.Array.from_dict(StorePath(store, "features"), json.loads(data))
    elif place.local is not None and not place.has("features/zarr.json"):
        raise vanished(place.url)
    return zarr.open_array(store, path="features", mode="r" if read_only else "r+")


def _bounds(features: zarr.Array[Any], batch: int, place: Place) -> tuple[int, int]:
    start, stop = span(features, batch)
    if not 0 <= start < stop:
        raise LeaseLost(
            f"batch {batch} is past the {features.shape[0]} rows of {place.url}: another run has "
            "shortened the store, run again"
        )
    return start, stop


def _set_rows(
    place: Place,
    array: zarr.Array[Any],
    rows: NDArray[np.int64],
    value: Callable[[int], Any],
    token: str | None,
) -> None:
    """Set rows of an array to `value(row)`, and write their chunks.

    A chunk that cannot be decoded is zeroed first: its other rows are damaged already.
    """
    for chunk, at in by_chunk(rows, array.chunks[0]):
        start, stop = span(array, chunk)
        try:
            values = decode(array, start, stop).copy()
        except StoreDamaged:
            values = np.zeros((stop - start, *array.shape[1:]), array.dtype)
        for row in rows[at].tolist():
            values[row - start] = value(row)
        _write_chunk(place, array, chunk, values, token)


def _write_chunk(
    place: Place, array: zarr.Array[Any], chunk: int, values: NDArray[Any], token: str | None
) -> None:
    if token is not None:
        check_token(place, token)
    start, stop = span(array, chunk)
    key, local = chunk_key(array, chunk), place.local
    # Zarr leaves out a chunk of zeros, and looks for one slowly.
    if not values.view(np.uint8).any():
        array[start:stop] = values
    elif local is not None and is_plain(array):
        size = array.chunks[0] * values[0].nbytes
        write_durably(local / key, np.ascontiguousarray(values).view(np.uint8), size=size)
        return
    else:  # `open_array` takes a config too, and ignores it for an array that is there
        array.with_config({"write_empty_chunks": True})[start:stop] = values
    place.sync([key])


def _packed(pictures: Sequence[bytes], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Up to `shape[0]` files as (pictures, bytes) uint8, padded with zeros."""
    values = np.zeros(shape, np.uint8)
    for place, data in zip(values, pictures, strict=False):
        if len(data) > len(place):
            raise ValueError(
                f"a preview of {len(data)} bytes does not fit into {len(place)}: "
                "encode it at a lower quality"
            )
        place[: len(data)] = np.frombuffer(data, np.uint8)
    return values
