"""The group and its arrays: opened, checked, brought to one length.

Chunks are named `c.12.0.0`, all of an array in one folder: one file and one folder to sync, and
no three levels of folders per chunk.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import zarr
from numpy.typing import ArrayLike, NDArray
from zarr.codecs import BytesCodec, Crc32cCodec, Endian, ZstdCodec

from store.errors import StoreDamaged, StoreMismatch, StoreNotFound, StoreTooNew, translated
from store.layout import (
    COLUMNS,
    FILLS,
    FORMAT,
    FORMAT_VERSION,
    PREVIEW,
    PREVIEW_BYTES,
    PREVIEWS_PER_CLIP,
    ROWS_PER_CHUNK,
    STEP_COLUMNS,
    STEP_FILLS,
    Layout,
)
from store.place import Options, Place, Url, is_pattern

SMALL_CODECS: tuple[Any, ...] = (ZstdCodec(level=1), Crc32cCodec())
"""Small columns carry a checksum: they have no digest beside them that would show damage."""

FEATURE_CODECS: tuple[Any, ...] = ()
"""None by measurement: bitshuffle-zstd saves 17 % of the bytes at half the write speed."""

KEYS = {"name": "default", "separator": "."}

NEEDED = ("features", "status", "video_id")
"""Arrays without which there is no store; another that is missing counts as unknown."""


def exists(url: Url, *, storage_options: Options = None) -> bool:
    """Whether there is a store (of any version or spec) at `url`."""
    place = Place(url, storage_options)
    with translated(place.url):
        data = place.read("zarr.json")
    if data is None:
        return False
    try:
        return str(json.loads(data)["attributes"]["format"]) == FORMAT
    except (ValueError, KeyError, TypeError):
        return False


def open_group(place: Place, *, read_only: bool = True) -> zarr.Group:
    """The store's group, checked to be one that this version understands.

    Raises `StoreNotFound`, `StoreMismatch` (something else is there), `StoreTooNew`.
    """
    data = place.read("zarr.json")
    if data is None and is_pattern(place.url):
        raise StoreNotFound(
            f"there is no feature store of the name {place.url}, which reads as a pattern for several, "
            "and one is needed here: name one of them"
        )
    if data is None:
        raise StoreNotFound(
            f"there is no feature store at {place.url}: check the path, "
            "or make one with `pixels-once features`"
        )
    try:
        attributes = dict(json.loads(data).get("attributes", {}))
    except (ValueError, TypeError, AttributeError) as error:
        raise StoreDamaged(
            f"{place.url}/zarr.json is not a group's metadata: restore it from a copy of the store"
        ) from error
    if attributes.get("format") != FORMAT:
        raise StoreMismatch(
            f"{place.url} is a Zarr group but no feature store "
            f"(format {attributes.get('format')!r}): name another location"
        )
    version = attributes.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise StoreTooNew(
            f"the store {place.url} has format version {version} and this version of pixels-once "
            f"reads up to {FORMAT_VERSION}: update pixels-once"
        )
    return zarr.open_group(place.zarr(read_only=read_only), mode="r" if read_only else "r+")


def open_arrays(
    group: zarr.Group, names: Sequence[str], *, needed: Iterable[str] = ()
) -> dict[str, zarr.Array[Any]]:
    """These arrays, opened at once; an array that the store does not have is left out.

    Raises `StoreDamaged` for an array whose metadata cannot be read, or a missing one of `needed`.
    """

    def open_one(name: str) -> zarr.Array[Any] | None:
        try:
            return group[name]
        except KeyError:
            return None
        except (ValueError, TypeError) as error:  # no JSON, no text, or not an array's
            raise StoreDamaged(
                f"{group.store_path}/{name}/zarr.json is damaged ({type(error).__name__}): restore "
                "it from a copy of the store"
            ) from error

    with ThreadPoolExecutor(8) as threads:
        opened = zip(names, threads.map(open_one, names), strict=True)
        arrays = {name: array for name, array in opened if array is not None}
    missing = [name for name in needed if name not in arrays]
    if missing:
        raise StoreDamaged(
            f"the store {group.store_path} has no array {', '.join(missing)}: restore it from a "
            "copy, or make a new store"
        )
    return arrays


def level(group: zarr.Group) -> dict[str, zarr.Array[Any]]:
    """All arrays by name, resized to the length of `status` if a run died while it grew them.

    A missing column (of a store that is older than the column) is added, filled as unknown.
    """
    arrays = open_arrays(group, ("features", PREVIEW, *STEP_COLUMNS, *COLUMNS), needed=NEEDED)
    rows = arrays["status"].shape[0]
    layout = layout_of(arrays["features"])
    for name in (*STEP_COLUMNS, *COLUMNS):
        if name not in arrays:
            arrays[name] = create_array(group.store_path, name, layout, rows)
    for name, array in arrays.items():
        longer = array.shape[0] > rows
        if array.shape[0] != rows:
            array.resize((rows, *array.shape[1:]))
        start = rows - rows % array.chunks[0]
        if longer and name not in ("features", PREVIEW) and start < rows:
            # Values past the end stay in the last chunk and would reappear when it grows.
            array[start:rows] = array[start:rows]
    return arrays


def layout_of(features: zarr.Array[Any]) -> Layout:
    """The layout that a store's `features` array has."""
    _, steps, *shape = features.shape
    return Layout(
        steps=steps, shape=tuple(shape), dtype=str(features.dtype), batch=features.chunks[0]
    )


def is_plain(array: zarr.Array[Any]) -> bool:
    """Whether a chunk's bytes are those of its rows in memory, one after the other."""
    codecs = array.metadata.codecs
    if sys.byteorder != "little" or len(codecs) != 1 or not isinstance(codecs[0], BytesCodec):
        return False
    whole_rows = tuple(array.chunks[1:]) == tuple(array.shape[1:])
    return whole_rows and (array.dtype.itemsize == 1 or codecs[0].endian == Endian.little)


def chunk_key(array: zarr.Array[Any], chunk: int) -> str:
    """The key of one chunk of rows below the store's root."""
    return f"{array.path}/{array.metadata.encode_chunk_key((chunk, *(0,) * (array.ndim - 1)))}"


def span(array: zarr.Array[Any], chunk: int) -> tuple[int, int]:
    """The first row of a chunk, and the one after its last."""
    size = array.chunks[0]
    return chunk * size, min((chunk + 1) * size, array.shape[0])


def by_chunk(rows: NDArray[np.int64], size: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Every chunk of `size` rows that holds some of `rows`, with their positions, by rising row."""
    order = np.argsort(rows, kind="stable")
    chunks = rows[order] // size
    for at in np.split(order, np.flatnonzero(np.diff(chunks)) + 1):
        if len(at):
            yield int(rows[at[0]]) // size, at


def row_numbers(rows: ArrayLike, total: int, url: str) -> NDArray[np.int64]:
    """Row numbers as an array. Raises `ValueError` where a store of `total` rows lacks one."""
    index = np.atleast_1d(np.asarray(rows, dtype=np.int64))
    if len(index) and (index.min() < 0 or index.max() >= total):
        raise ValueError(
            f"rows {index.min()} to {index.max()} were asked for and {url} has {total}: pass row "
            "numbers of its table"
        )
    return index


def create_array(where: Any, name: str, layout: Layout, rows: int) -> zarr.Array[Any]:
    """Make one array of the format, filled as unknown; returns it."""
    size, codecs = ROWS_PER_CHUNK, SMALL_CODECS
    inner: tuple[int, ...] = ()
    dimensions: tuple[str, ...] = ("video",)
    dtype, fill = FILLS.get(name, STEP_FILLS.get(name, ("uint8", 0)))
    if name == "features":
        size, codecs, dtype = layout.batch, FEATURE_CODECS, layout.dtype
        inner, dimensions = layout.row_shape, layout.dimensions
    elif name == PREVIEW:
        size, inner = layout.batch, (PREVIEWS_PER_CLIP, PREVIEW_BYTES)
        dimensions = ("video", "picture", "byte")
    elif name in STEP_FILLS:
        inner, dimensions = (layout.steps,), ("video", "step")
    return zarr.create_array(
        where,
        name=name,
        shape=(rows, *inner),
        chunks=(size, *inner),
        dtype=dtype,
        fill_value=fill,
        compressors=codecs,
        chunk_key_encoding=KEYS,
        dimension_names=dimensions,
    )
