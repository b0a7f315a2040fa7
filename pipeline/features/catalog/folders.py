"""Clips in folders: the walk, and what the folders' names say."""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pandas as pd

from pipeline.errors import ConfigError
from pipeline.features.catalog.table import ABSENT, SPLIT_NAMES, make_catalog
from pipeline.features.catalog.ucf import ucf_group

CLIP_ENDINGS = frozenset(
    f".{ending}"
    for line in (
        "3g2 3gp asf avi divx dv f4v flv gif m1v m2ts m2v m4v mjpeg mjpg mkv mov mp4",
        "mpe mpeg mpg mts mxf ogm ogv qt rm rmvb ts vob webm wmv y4m",
    )
    for ending in line.split()
)
"""File name endings, in lower case, by which a file in a folder counts as a clip."""

_NOT_OURS = {"lost+found", "System Volume Information", "$RECYCLE.BIN", "__MACOSX"}


class Found(NamedTuple):
    """A clip as a listing gives it."""

    video_id: str
    path: str
    size_bytes: int
    mtime_ns: int


def list_folder(root: str) -> pd.DataFrame:
    """Every clip below `root`, at any depth, sorted by id.

    The first folder below the root is the label; where all of them are named as splits, they are
    the split and the second is the label. Hidden files and folders and stores (`*.zarr`) are
    passed over, links are followed but never in a circle.
    Raises `ConfigError` where there is no clip or a folder may not be listed.
    """
    found = sorted(_walk(root, "", frozenset()))
    if not found:
        endings = " ".join(sorted(CLIP_ENDINGS))
        raise ConfigError(
            f"there is no clip under {root!r}: a clip's name ends in one of {endings}"
        )
    return by_folders(found)


def by_folders(found: Sequence[Found]) -> pd.DataFrame:
    """The catalog of listed clips, with labels and splits from the folders of their ids."""
    parts = [f.video_id.split("/")[:-1] for f in found]
    by_split = all(folders and folders[0].lower() in SPLIT_NAMES for folders in parts)
    skip = 1 if by_split else 0
    return make_catalog(
        {
            "video_id": [f.video_id for f in found],
            "path": [f.path for f in found],
            "label": [folders[skip] if len(folders) > skip else "" for folders in parts],
            "split": [SPLIT_NAMES[folders[0].lower()] if by_split else "" for folders in parts],
            "group": [ucf_group(f.video_id) for f in found],
            "size_bytes": [f.size_bytes for f in found],
            "mtime_ns": [f.mtime_ns for f in found],
        }
    )


def list_one(path: str) -> pd.DataFrame:
    """The catalog of one file, whatever its name ends in; its id is its name."""
    state = os.stat(path)
    name = os.path.basename(path)
    return make_catalog(
        {
            "video_id": [name],
            "path": [path],
            "label": [""],
            "split": [""],
            "group": [ucf_group(name)],
            "size_bytes": [state.st_size],
            "mtime_ns": [state.st_mtime_ns],
        }
    )


def is_clip_name(name: str) -> bool:
    """Whether a file of this name counts as a clip."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in CLIP_ENDINGS


def _walk(folder: str, prefix: str, above: frozenset[tuple[int, int]]) -> Iterator[Found]:
    """The clips of a folder and those below it; `above` are the folders that lead here."""
    state = os.stat(folder)
    here = (state.st_dev, state.st_ino)
    if here in above:
        return  # a link back to where we come from
    try:
        with os.scandir(folder) as entries:
            listing = list(entries)
    except OSError as error:
        raise ConfigError(
            f"the folder {folder!r} cannot be listed ({error.strerror}): "
            "give the right to read it, or move it away"
        ) from None
    for entry in listing:
        if entry.name.startswith(".") or entry.name in _NOT_OURS:
            continue
        if not _is_text(entry.name):
            warnings.warn(
                f"{entry.path!r} is left out: its name is not UTF-8; rename it", stacklevel=2
            )
        elif entry.is_dir():
            if not entry.name.endswith(".zarr"):
                yield from _walk(entry.path, f"{prefix}{entry.name}/", above | {here})
        elif is_clip_name(entry.name):
            size_and_time = _state(entry)
            if size_and_time is not None:
                yield Found(prefix + entry.name, entry.path, *size_and_time)


def _state(entry: os.DirEntry[str]) -> tuple[int, int] | None:
    """(size, mtime) of a file, `ABSENT` for a dangling link, None for what is no file at all."""
    try:
        state = entry.stat()
    except OSError:
        return ABSENT
    return (state.st_size, state.st_mtime_ns) if stat.S_ISREG(state.st_mode) else None


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
