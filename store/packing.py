"""One file of a store, to send to others, and back."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import posixpath
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from store.arrays import chunk_key, open_arrays, open_group
from store.durable import partial, sync_files
from store.errors import StoreBusy, StoreDamaged, StoreMismatch, translated
from store.lease import holder
from store.place import Options, Place, Url
from store.verify import verify

SHEET, README = "datasheet.json", "README.md"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same store makes the same file
_LOCAL_ATTRIBUTES = ("clips", "first_stage", "last_run")
"""Attributes that say where things are on the host that made the store; none leaves it."""


def pack(
    url: str,
    out: Url,
    *,
    readme: str,
    datasheet: Mapping[str, Any],
    storage_options: Options = None,
) -> int:
    """Write the store as one ZIP archive without compression; returns its bytes.

    readme, datasheet: what stands beside the arrays, for readers. Ids that are no relative paths are
    made relative to the folder that they share. The archive is read back before it has its name.

    Raises `StoreBusy` where a run writes or has written meanwhile, `StoreMismatch` where `out` is
    there or inside of the store, `StoreDamaged` where rows are damaged, and `StoreUnwritable`.
    """
    place, target = Place(url, storage_options), _local(out)
    if target.exists():
        raise _taken(target)
    if not target.parent.is_dir():
        raise StoreMismatch(f"{target.parent} is not a folder: make it, or name another place")
    if place.local is not None and target.resolve().is_relative_to(place.local.resolve()):
        raise StoreMismatch(f"{target} is inside of the store {place.url}: name another place")
    with translated(place.url):
        writing = holder(url, storage_options=storage_options)
        if writing is not None:
            raise StoreBusy(
                f"the store {place.url} is being written by {writing}: pack it when that has ended",
                writing,
            )
        before = place.objects()
    # With the ending that says what it is: it is read back as a packed store.
    with translated(str(target), "file"), partial(target, ".partial.zip") as making:
        with zipfile.ZipFile(making, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            _put(archive, README, readme.encode())
            _put(archive, SHEET, json.dumps(datasheet, indent=1, ensure_ascii=False).encode())
            with tempfile.TemporaryDirectory() as folder, translated(place.url):
                changed = _changed(place, Path(folder))
            for key in sorted(before.keys() - {README, SHEET}):
                with translated(place.url):
                    data = changed.get(key) or place.read(key) or b""
                _put(archive, key, data)
        with translated(place.url):
            writing = holder(url, storage_options=storage_options)
            if writing is not None or place.objects() != before:
                raise StoreBusy(
                    f"the store {place.url} was written while it was packed: pack it again", writing
                )
        _require_sound(making, place.url)
        sync_files([making])
        _give_name(making, target)
        sync_files([target])
    return target.stat().st_size


def unpack(url: str, out: Url, *, storage_options: Options = None) -> int:
    """Make a packed store a folder that runs can write to; returns how many files it has.

    Every member's checksum is compared. Raises `StoreMismatch` where `out` holds something, or where
    `url` is no packed store, and `StoreDamaged` for a member that is damaged.
    """
    place, target = Place(url, storage_options), _local(out)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise StoreMismatch(f"{target} is there already: name an empty or a new folder")
    with translated(place.url):
        if not place.packed:
            raise StoreMismatch(
                f"{place.url} is no packed store: name a file that `pack` has written"
            )
        open_group(place)
        keys = sorted(place.objects().keys() - {README, SHEET})
    with translated(str(target), "folder"):
        target.parent.mkdir(parents=True, exist_ok=True)
        with partial(target, folder=True) as making:
            for key in keys:
                path = making / _inside(key, place.url)
                path.parent.mkdir(parents=True, exist_ok=True)
                with translated(place.url):
                    data = place.archive.read(key, check=True) or b""
                path.write_bytes(data)
            sync_files(path for path in making.rglob("*") if path.is_file())
            try:
                if target.exists():
                    target.rmdir()
                os.rename(making, target)
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST):  # another was faster
                    raise _taken(target) from None
                raise
        sync_files([target])
    return len(keys)


def read_datasheet(url: str, *, storage_options: Options = None) -> dict[str, Any]:
    """What `pack` wrote beside the arrays; empty where there is none."""
    place = Place(url, storage_options)
    with translated(place.url):
        return dict(json.loads(place.read(SHEET) or b"{}"))


def _give_name(making: Path, target: Path) -> None:
    """Rename the file; one that is there by now stays, and `StoreMismatch` is raised."""
    try:
        try:
            os.link(making, target)
        except OSError:  # it is there, or a disk without hard links
            target.open("xb").close()
            os.replace(making, target)
    except FileExistsError:
        raise _taken(target) from None


def _taken(target: Path) -> StoreMismatch:
    return StoreMismatch(f"{target} is there already: name another place, or remove it")


def _put(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    member = zipfile.ZipInfo(name, _EPOCH)
    member.external_attr = 0o644 << 16
    archive.writestr(member, data)


def _inside(key: str, url: str) -> str:
    parts = key.split("/")
    if key.startswith("/") or "\\" in key or any(part in ("", ".", "..") for part in parts):
        raise StoreDamaged(
            f"{url} has a member {key!r}, which is no path inside a store: do not use this archive, "
            "fetch it again"
        )
    return key


def _local(out: Url) -> Path:
    if "://" in os.fspath(out):
        raise StoreMismatch(f"{out} is a URL: name a place on this machine, and copy it afterwards")
    return Path(out).expanduser().absolute()


def _changed(place: Place, folder: Path) -> dict[str, bytes]:
    """The objects in which the archive differs from the store: what names places on this host."""
    group = open_group(place)
    document = json.loads(place.read("zarr.json") or b"{}")
    attributes = document["attributes"]
    for name in _LOCAL_ATTRIBUTES:
        attributes.pop(name, None)
    array = open_arrays(group, ("video_id",))["video_id"]
    ids = [str(name) for name in np.asarray(array[:]).tolist()]
    relative = dict(zip(ids, relative_ids(ids), strict=True))
    for values in attributes.get("test_sets", {}).values():
        values["video_ids"] = [relative.get(name, name) for name in values.get("video_ids", [])]
    changed = {"zarr.json": json.dumps(document, ensure_ascii=False).encode()}
    if list(relative) == list(relative.values()):
        return changed
    (folder / "video_id").mkdir()
    (folder / "video_id" / "zarr.json").write_bytes(place.read("video_id/zarr.json") or b"")
    copy = zarr.open_array(folder / "video_id", mode="r+")
    copy[:] = np.array([relative[name] for name in ids], dtype=np.dtypes.StringDType())
    for chunk in range(-(-len(ids) // copy.chunks[0])):
        key = chunk_key(array, chunk)
        changed[key] = (folder / key).read_bytes()
    return changed


def relative_ids(ids: list[str]) -> list[str]:
    """The ids, those that are no relative paths made so, each still its own.

    >>> relative_ids(["a/b.mp4", "/data/x/c.mp4", "/data/x/y/d.mp4"])
    ['a/b.mp4', 'c.mp4', 'y/d.mp4']
    """
    outside = [n for n in ids if n.startswith(("/", "../")) or "://" in n or "/../" in n]
    if not outside:
        return ids
    plain = {n: posixpath.normpath(n.partition("://")[2] or n).lstrip("/") for n in outside}
    plain = {n: "/".join(p for p in path.split("/") if p != "..") for n, path in plain.items()}
    shared = posixpath.commonpath([posixpath.dirname(path) for path in plain.values()])
    cut = len(shared) + 1 if shared else 0
    taken = set(ids) - set(outside)
    renamed = {}
    for name, path in plain.items():
        short = path[cut:]
        if short in taken:
            short = f"{hashlib.sha256(name.encode()).hexdigest()[:12]}/{short}"
        taken.add(short)
        renamed[name] = short
    return [renamed.get(name, name) for name in ids]


def _require_sound(archive: Path, url: str) -> None:
    report = verify(str(archive))
    if not report.ok:
        what = [f"{len(report.damaged)} rows"] * bool(len(report.damaged))
        what += [f"the column {name}" for name in report.columns] + report.problems
        raise StoreDamaged(
            f"{url} cannot be packed, {what[0]} of it are damaged: run `pixels-once verify --repair` "
            "and `features`, then pack it"
        )
