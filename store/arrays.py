"""The group and its arrays: made, opened, checked, levelled.

Chunks are named `c.12.0.0`, all of an array in one folder: one file and one folder to sync, and
no three levels of folders per chunk.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.storage import LocalStore

from store.durable import sync_files
from store.errors import StoreDamaged, StoreMismatch, StoreNotFound, StoreTooNew, translated
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


def create(
    url: str | os.PathLike[str],
    *,
    layout: Layout,
    spec: Mapping[str, Any],
    fingerprint: str,
    software: Mapping[str, str],
    storage_options: Mapping[str, Any] | None = None,
) -> None:
    """Make an empty store. All or nothing: a store that was made halfway is not a store.

    Asking again for the store that is already there does nothing; asking for another one raises
    `StoreMismatch`. Raises `StoreUnwritable` where the place does not take it.
    """
    place = Place(url, storage_options)
    attributes = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "spec": dict(spec),
        "fingerprint": fingerprint,
        "classes": [],
        "batch": layout.batch,
        "software": dict(software),
    }
    with translated(place.url):
        if exists(url, storage_options=storage_options):
            _check_same(place, layout, fingerprint)
        elif place.local is not None:
            _create_folder(place, layout, attributes)
        else:
            _refuse_others(place)
            _upload(place, layout, attributes)


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
        attributes = json.loads(data).get("attributes", {})
    except ValueError as error:
        raise StoreDamaged(
            f"{place.url}/zarr.json is not JSON: restore it from a copy of the store"
        ) from error
    if attributes.get("format") != FORMAT:
        raise StoreMismatch(
            f"{place.url} is a Zarr group but no feature store "
            f"(format {attributes.get('format')!r}): name another place"
        )
    version = attributes.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise StoreTooNew(
            f"the store {place.url} has format version {version} and this version of pixels-once "
            f"reads up to {FORMAT_VERSION}: update pixels-once"
        )
    return zarr.open_group(place.zarr(read_only=read_only), mode="r" if read_only else "r+")


def open_arrays(group: zarr.Group, names: tuple[str, ...]) -> dict[str, zarr.Array[Any]]:
    """These arrays, opened at once; an array that the store does not have is left out."""

    def one(name: str) -> zarr.Array[Any] | None:
        try:
            return group[name]
        except KeyError:
            return None

    with ThreadPoolExecutor(8) as threads:
        found = threads.map(one, names)
    return {name: array for name, array in zip(names, found, strict=True) if array is not None}


def level(group: zarr.Group) -> dict[str, zarr.Array[Any]]:
    """All arrays, as long as `status`: what a run that died while growing them left is mended.

    A missing column (of a store from before that column) is added, filled as unknown. Returns
    the arrays by name.
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
            arrays[name] = _create_column(group.store_path, name, layout, rows)
    for name, array in arrays.items():
        longer = array.shape[0] > rows
        if array.shape[0] != rows:
            array.resize((rows, *array.shape[1:]))
        start = rows - rows % array.chunks[0]
        if longer and name not in ("features", PREVIEW) and start < rows:
            # Values past the end stay in the last chunk and would come back when it grows.
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


def _check_same(place: Place, layout: Layout, fingerprint: str) -> None:
    group = open_group(place)
    theirs = str(group.attrs["fingerprint"])
    there = layout_of(open_arrays(group, ("features",))["features"])
    if theirs != fingerprint:
        raise StoreMismatch(
            f"the store {place.url} holds fingerprint {theirs[:12]} and {fingerprint[:12]} was "
            "asked for: use the settings it was made with, or another store"
        )
    if there != layout:
        raise StoreMismatch(
            f"the store {place.url} has {there} and {layout} was asked for: "
            "use what it was made with, or another store"
        )


def _create_folder(place: Place, layout: Layout, attributes: dict[str, Any]) -> None:
    target = place.local
    assert target is not None
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise StoreMismatch(
            f"{target} is there already and is no feature store: name an empty or a new folder"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    making = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
    try:
        _create_members(making, layout, attributes)
        sync_files(making.rglob("zarr.json"))
        try:
            os.rename(making, target)
        except OSError:
            if not exists(target):
                raise
            _check_same(place, layout, str(attributes["fingerprint"]))  # made by another, just now
    finally:
        shutil.rmtree(making, ignore_errors=True)
    sync_files([Path(target)])


def _refuse_others(place: Place) -> None:
    """An object store has no folders to look into: any group with attributes is someone else's."""
    data = place.read("zarr.json")
    if data is not None and json.loads(data).get("attributes"):
        raise StoreMismatch(f"{place.url} is a Zarr group but no feature store: name another place")


def _upload(place: Place, layout: Layout, attributes: dict[str, Any]) -> None:
    """Made on the local disk, then copied: one request per array instead of nine."""
    with tempfile.TemporaryDirectory() as folder:
        _create_members(Path(folder), layout, attributes)
        made = sorted(Path(folder).rglob("zarr.json"), key=lambda p: len(p.parts), reverse=True)
        for path in made:  # the group last: it makes it a store
            place.put(path.relative_to(folder).as_posix(), path.read_bytes())


def _create_members(folder: Path, layout: Layout, attributes: dict[str, Any]) -> None:
    where = LocalStore(folder)
    zarr.create_array(
        where,
        name="features",
        shape=(0, *layout.row_shape),
        chunks=(layout.batch, *layout.row_shape),
        dtype=layout.dtype,
        fill_value=0,
        compressors=FEATURE_CODECS,
        chunk_key_encoding=KEYS,
        dimension_names=layout.dimensions,
    )
    for name in (*STEP_COLUMNS, *COLUMNS):
        _create_column(where, name, layout, 0)
    zarr.open_group(where, mode="a").update_attributes(attributes)


def _create_column(where: Any, name: str, layout: Layout, rows: int) -> zarr.Array[Any]:
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
