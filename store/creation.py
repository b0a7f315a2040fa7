"""Creating an empty store: whole or not at all, and only once if several start at the same time."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import zarr
from zarr.storage import LocalStore

from store.arrays import create_array, exists, layout_of, open_arrays, open_group
from store.durable import partial, sync_files
from store.errors import StoreBusy, StoreMismatch, translated
from store.layout import COLUMNS, FORMAT, FORMAT_VERSION, STEP_COLUMNS, Layout
from store.lease import Lease
from store.place import Options, Place, Url

_OTHERS_S = 60.0  # another process that creates the same store has finished by then, or died


def create(
    url: Url,
    *,
    layout: Layout,
    spec: Mapping[str, Any],
    fingerprint: str,
    software: Mapping[str, str],
    lease: bool = True,
    storage_options: Options = None,
) -> None:
    """Create an empty store, whole or not at all.

    Does nothing if the same store exists; raises `StoreMismatch` if another one does. On an object
    store it is created under the lease (unless `lease` is false): of two that create it at once, the
    second would empty the arrays that the first has begun to fill. Raises `StoreUnwritable` if the
    location cannot be written, `StoreBusy` while another process creates it.
    """
    place = Place(url, storage_options)
    attributes: dict[str, Any] = {
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
        elif "*" in place.url:
            raise StoreMismatch(
                f"{place.url} is a pattern that several stores may match, and a new store has one name: "
                "leave out the *"
            )
        elif place.local is not None:
            _create_folder(place, layout, attributes)
        else:
            # On an object store, which has no folders, any other group with attributes is someone else's.
            data = place.read("zarr.json")
            if data is not None and json.loads(data).get("attributes"):
                raise StoreMismatch(
                    f"{place.url} is a Zarr group but no feature store: name another location"
                )
            if lease:
                _upload_alone(place, layout, attributes)
            else:
                _upload(place, layout, attributes)


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
    with partial(target, folder=True) as making:
        _create_members(making, layout, attributes)
        sync_files(making.rglob("zarr.json"))
        try:
            os.rename(making, target)
        except OSError:
            if not exists(target):
                raise
            _check_same(place, layout, attributes["fingerprint"])  # made by another, just now
    sync_files([target])


def _upload_alone(place: Place, layout: Layout, attributes: dict[str, Any]) -> None:
    until = time.monotonic() + _OTHERS_S
    while not exists(place.url, storage_options=place.options):
        try:
            held = Lease.acquire(place, "create")
        except StoreBusy:
            if time.monotonic() >= until and not exists(place.url, storage_options=place.options):
                raise
            time.sleep(0.5)
            continue
        try:
            if not exists(place.url, storage_options=place.options):
                _upload(place, layout, attributes)
                return
        finally:
            # A lease that stays blocks other hosts for a minute, no longer.
            with suppress(Exception):
                held.release(held.holder.batches)
    _check_same(place, layout, attributes["fingerprint"])


def _upload(place: Place, layout: Layout, attributes: dict[str, Any]) -> None:
    """Create it on the local disk, then copy it: one request per array instead of nine."""
    with tempfile.TemporaryDirectory() as folder:
        _create_members(Path(folder), layout, attributes)
        files = sorted(Path(folder).rglob("zarr.json"), key=lambda p: len(p.parts), reverse=True)
        for path in files:  # the group last: with it the store exists
            place.put(path.relative_to(folder).as_posix(), path.read_bytes())


def _create_members(folder: Path, layout: Layout, attributes: dict[str, Any]) -> None:
    where = LocalStore(folder)
    for name in ("features", *STEP_COLUMNS, *COLUMNS):
        create_array(where, name, layout, 0)
    zarr.open_group(where, mode="a").update_attributes(attributes)
