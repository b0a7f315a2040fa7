"""Small pictures of every clip, in an array of their own that no digest and no fingerprint covers.

`preview` (video, picture, byte) uint8: three JPEG files a clip, each padded with zeros, zeros alone
where there is none. One chunk per batch, written by the worker that writes the batch's features.
They are optional: a store without them, or with damaged ones, is complete.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import zarr
from numpy.typing import ArrayLike, NDArray

from store.arrays import KEYS, SMALL_CODECS, chunk_key, open_arrays, open_group
from store.chunks import decode
from store.durable import sync_files
from store.errors import StoreDamaged, translated
from store.layout import PREVIEW, PREVIEW_BYTES, PREVIEWS_PER_CLIP
from store.lease import check_token
from store.place import Place


def create_previews(group: zarr.Group, rows: int, batch: int) -> zarr.Array[Any]:
    """Add the array to a store that has none. The caller holds the lease."""
    return zarr.create_array(
        group.store_path,
        name=PREVIEW,
        shape=(rows, PREVIEWS_PER_CLIP, PREVIEW_BYTES),
        chunks=(batch, PREVIEWS_PER_CLIP, PREVIEW_BYTES),
        dtype="uint8",
        fill_value=0,
        compressors=SMALL_CODECS,
        chunk_key_encoding=KEYS,
        dimension_names=("video", "picture", "byte"),
    )


def write_previews(
    url: str,
    pictures: Mapping[int, Sequence[bytes]],
    *,
    token: str | None,
    storage_options: Mapping[str, Any] | None = None,
) -> None:
    """Set the pictures of these rows (row → up to three JPEG files); other rows keep theirs.

    Whole chunks are read and written, so the rows must be those of one's own batch. Does nothing
    in a store without previews. Raises `ValueError` on a picture that is too large for its place,
    `LeaseLost` and `StoreUnwritable` as `write_batch` does.
    """
    place = Place(url, storage_options)
    with translated(place.url):
        arrays = open_arrays(open_group(place, read_only=False), (PREVIEW,))
        if PREVIEW not in arrays:
            return
        array = arrays[PREVIEW]
        size, rows = array.chunks[0], np.array(sorted(pictures), dtype=np.int64)
        rows = rows[rows < array.shape[0]]
        for chunk in np.unique(rows // size).tolist():
            start, stop = chunk * size, min((chunk + 1) * size, array.shape[0])
            try:
                values = decode(array, start, stop).copy()
            except StoreDamaged:
                values = np.zeros((stop - start, *array.shape[1:]), np.uint8)
            for row in rows[rows // size == chunk].tolist():
                values[row - start] = packed(pictures[row], array.shape[1:])
            if token is not None:
                check_token(place, token)
            array[start:stop] = values
            if place.local is not None:
                sync_files([place.local / chunk_key(PREVIEW, chunk, array)])


def read_previews(
    url: str, rows: ArrayLike, *, storage_options: Mapping[str, Any] | None = None
) -> list[list[bytes]]:
    """The pictures of these rows, in their order: JPEG files, oldest frame first; [] for none.

    A store made without previews has none; nor has a chunk that cannot be decoded.
    """
    index = np.atleast_1d(np.asarray(rows, dtype=np.int64))
    pictures: list[list[bytes]] = [[] for _ in index]
    place = Place(url, storage_options)
    with translated(place.url):
        arrays = open_arrays(open_group(place), (PREVIEW,))
        if PREVIEW not in arrays:
            return pictures
        array = arrays[PREVIEW]
        size, length = array.chunks[0], array.shape[0]
        for chunk in np.unique(index // size).tolist():
            start = chunk * size
            try:
                values = decode(array, start, min(start + size, length))
            except StoreDamaged:
                continue
            for at in np.flatnonzero((index // size == chunk) & (index < length)).tolist():
                pictures[at] = unpacked(values[index[at] - start])
    return pictures


def packed(pictures: Sequence[bytes], shape: tuple[int, ...]) -> NDArray[np.uint8]:
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


def unpacked(values: NDArray[np.uint8]) -> list[bytes]:
    """The files in one row's (pictures, bytes); a JPEG ends with 0xD9, so padding is no part of it."""
    files = [place.tobytes().rstrip(b"\0") for place in values]
    return [data for data in files if data]
