"""One batch of features is one chunk, read and written whole; workers call this."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numpy.typing import NDArray

from store.arrays import chunk_key
from store.durable import sync_files
from store.errors import LeaseLost, StoreDamaged, StoreUnwritable, translated
from store.lease import check_token
from store.place import Place


def row_digests(features: NDArray[Any]) -> NDArray[np.uint32]:
    """CRC-32C of each row's bytes (C order, little endian): (n, …) any dtype → (n,) uint32."""
    little = features.astype(features.dtype.newbyteorder("<"), copy=False)
    rows = np.ascontiguousarray(little).view(np.uint8).reshape(len(features), -1)
    return np.fromiter((google_crc32c.value(row) for row in rows), np.uint32, len(rows))


def read_batch(
    url: str, batch: int, *, storage_options: Mapping[str, Any] | None = None
) -> NDArray[Any]:
    """The features of one chunk's rows, (n, steps, *shape), n ≤ the batch size.

    A chunk that was never written reads as zeros. Raises `StoreDamaged` where the bytes cannot be
    decoded and `StoreUnwritable` where the place cannot be read.
    """
    place = Place(url, storage_options)
    with translated(place.url):
        features = _open(place, read_only=True)
        start, stop = _bounds(features, batch, place)
        return decode(features, start, stop)


def matching(
    url: str,
    batch: int,
    rows: NDArray[np.int64],
    digests: NDArray[np.uint32],
    *,
    storage_options: Mapping[str, Any] | None = None,
) -> NDArray[np.bool_]:
    """Whether these rows of a chunk, counted from its first, match their digests: (n,) bool.

    All false for a chunk that cannot be decoded.
    """
    try:
        features = read_batch(url, batch, storage_options=storage_options)
    except StoreDamaged:
        return np.zeros(len(rows), bool)
    return np.asarray(row_digests(features[rows]) == digests)


def decode(features: zarr.Array[Any], start: int, stop: int) -> NDArray[Any]:
    """Rows of an array; `StoreDamaged` names them where their chunk cannot be decoded."""
    try:
        return np.asarray(features[start:stop])
    except OSError:
        raise
    except Exception as error:
        raise StoreDamaged(
            f"rows {start} to {stop - 1} of {features.store_path} cannot be decoded ({error}): "
            "run `pixels-once verify --repair`"
        ) from error


def write_batch(
    url: str,
    batch: int,
    features: NDArray[Any],
    *,
    token: str | None,
    storage_options: Mapping[str, Any] | None = None,
) -> NDArray[np.uint32]:
    """Write one whole chunk and return the digests of its rows, (n,) uint32.

    features: all existing rows of the chunk, (n, steps, *shape), new and kept ones alike.
    token: of the lease, which is read again just before writing; None for a run without a lease.
    On a local disk file and folder are synced before this returns.
    Raises `LeaseLost` if another run holds the lease: discard the work. Raises `StoreUnwritable` if
    the location is full, forbidden or gone.
    """
    place = Place(url, storage_options)
    with translated(place.url):
        # Zarr leaves out a chunk of zeros, and looks for one slowly.
        array = _open(place, read_only=False, whole=bool(features.view(np.uint8).any()))
        start, stop = _bounds(array, batch, place)
        if features.shape != (stop - start, *array.shape[1:]):
            raise ValueError(
                f"batch {batch} has {stop - start} rows of {array.shape[1:]} and {features.shape} "
                "was given: pass the whole chunk"
            )
        if features.dtype != array.dtype:
            raise ValueError(f"features are {features.dtype}, the store's are {array.dtype}")
        digests = row_digests(features)
        if token is not None:
            check_token(place, token)
        array[start:stop] = features
        if place.local is not None:
            sync_files([place.local / chunk_key("features", batch, array)])
    return digests


def _open(place: Place, *, read_only: bool, whole: bool = False) -> zarr.Array[Any]:
    store = place.zarr(read_only=read_only)
    if place.local is not None and not place.has("features/zarr.json"):
        raise StoreUnwritable(
            f"the store {place.url} has vanished: bring it back, or make a new store"
        )
    mode = "r" if read_only else "r+"
    return zarr.open_array(store, path="features", mode=mode, config={"write_empty_chunks": whole})


def _bounds(features: zarr.Array[Any], batch: int, place: Place) -> tuple[int, int]:
    size = features.chunks[0]
    start, stop = batch * size, min((batch + 1) * size, features.shape[0])
    if not 0 <= start < stop:
        raise LeaseLost(
            f"batch {batch} is past the {features.shape[0]} rows of {place.url}: another run has "
            "shortened the store, run again"
        )
    return start, stop
