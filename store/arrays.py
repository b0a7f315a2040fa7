"""The group and its arrays: opened, checked, brought to one length.

Chunks are named `c.12.0.0`, all of an array in one folder: one file and one folder to sync, and
no three levels of folders per chunk.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from store.errors import (
    StoreDamaged,
    StoreMismatch,
    StoreNotFound,
    StoreTooNew,
    translated,
)
from store.layout import (
    COLUMNS,
    FILLS,
    FORMAT,
    FORMAT_VERSION,
    PREVIEW,
    ROWS_PER_CHUNK,
    STEP_COLUMNS,
    STEP_FILLS,
    Layout,
)
from store.place import Place

SMALL_CODECS = (ZstdCodec(level=1), Crc32cCodec())
"""Small columns carry a checksum: they have no digest beside them that would show damage."""

FEATURE_CODECS: tuple[Any, ...] = ()
"""None by measurement: bitshuffle-zstd saves 17 % of the bytes at half the write speed."""

KEYS = {"name": "default", "separator": "."}


def exists(
    url: str | os.PathLike[str], *, storage_options: Mapping[str, Any] | None = None
) -> bool:
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


def open_arrays(group: zarr.Group, names: tuple[str, ...]) -> dict[str, zarr.Array[Any]]:
    """These arrays, opened at once; an array that the store does not have is left out.

    Raises `StoreDamaged` for an array whose metadata cannot be read.
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
        arrays = threads.map(open_one, names)
    return {name: array for name, array in zip(names, arrays, strict=True) if array is not None}


def level(group: zarr.Group) -> dict[str, zarr.Array[Any]]:
    """All arrays by name, resized to the length of `status` if a run died while it grew them.

    A missing column (of a store that is older than the column) is added, filled as unknown.
    """
    arrays = open_arrays(group, ("features", PREVIEW, *STEP_COLUMNS, *COLUMNS))
    for name in ("features", "status", "video_id"):
        if name not in arrays:
            raise StoreDamaged(
                f"the store {group.store_path} has no array {name}: restore it from a copy, "
                "or make a new store"
            )
    rows = arrays["status"].shape[0]
    layout = layout_of(arrays["features"])
    for name in (*STEP_COLUMNS, *COLUMNS):
        if name not in arrays:
            arrays[name] = create_column(group.store_path, name, layout, rows)
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


def chunk_key(name: str, chunk: int, array: zarr.Array[Any]) -> str:
    """The key of one chunk of rows below the store's root."""
    return f"{name}/{array.metadata.encode_chunk_key((chunk, *(0,) * (array.ndim - 1)))}"


def create_column(where: Any, name: str, layout: Layout, rows: int) -> zarr.Array[Any]:
    """Make one small column, filled as unknown; returns it."""
    steps = name in STEP_FILLS
    dtype, fill = STEP_FILLS[name] if steps else FILLS[name]
    inner = (layout.steps,) if steps else ()
    return zarr.create_array(
        where,
        name=name,
        shape=(rows, *inner),
        chunks=(ROWS_PER_CHUNK, *inner),
        dtype=dtype,
        fill_value=fill,
        compressors=SMALL_CODECS,
        chunk_key_encoding=KEYS,
        dimension_names=("video", "step") if steps else ("video",),
    )
