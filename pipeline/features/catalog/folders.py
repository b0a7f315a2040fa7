"""Clips in folders: the walk, and labels and splits from the folders' names."""

from __future__ import annotations

import errno
import os
import stat
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pandas as pd

from pipeline.errors import ConfigError
from pipeline.features.catalog.table import ABSENT, SPLIT_NAMES, make_catalog, ucf_group
from pipeline.features.files import NoAnswer, NotRegular, answered, read_start
from pipeline.spans import WHOLE, Span

CLIP_ENDINGS = frozenset(
    f".{ending}"
    for line in (
        "264 265 3g2 3gp amv asf avi divx dv f4v flv gif gxf h264 h265 hevc ivf m1v m2p m2ts m2v m4v",
        "mjpeg mjpg mk3d mkv mov mp4 mpe mpeg mpg mpv mts mxf nut obu ogm ogv qt rm rmvb ts vob vvc",
        "webm wmv wtv y4m",
    )
    for ending in line.split()
)
"""File name endings, in lower case, by which a file in a folder counts as a clip."""

MOST_WAYS = 64
"""A folder that links reach in more ways than this ends the listing: ten folders that link to each
other would otherwise be listed a million times."""

_MOST_ENDINGS = 12

_NOT_OURS = {"lost+found", "System Volume Information", "$RECYCLE.BIN", "__MACOSX"}


class LeftOut(UserWarning):
    """Files in a folder that are not taken for clips."""


class Unplaced(UserWarning):
    """Clips whose folders give neither label nor split."""


class Listed(NamedTuple):
    """A clip as a listing gives it."""

    video_id: str
    path: str
    size_bytes: int
    mtime_ns: int


def list_folder(root: str) -> pd.DataFrame:
    """Every clip below `root`, at any depth, sorted by id.

    The first folder below the root is the label; where they are named as splits, they are the split
    and the second is the label. Hidden files and folders and stores (`*.zarr`) are passed over,
    links are followed, but no cycle of them. Files whose endings are not those of clips are left
    out, and one warning names the endings.
    Raises `ConfigError` where there is no clip or a folder may not be listed.
    """
    left_out: Counter[str] = Counter()
    clips = sorted(_walk(root, left_out))
    if left_out:
        warnings.warn(_left_out(left_out, root), LeftOut, stacklevel=2)
    if not clips:
        endings = " ".join(sorted(CLIP_ENDINGS))
        raise ConfigError(
            f"there is no clip under {root!r}: a clip's name ends in one of {endings}"
        )
    return by_folders(clips)


def by_folders(clips: Sequence[Listed], span: Span = WHOLE) -> pd.DataFrame:
    """The catalog of listed clips, with labels and splits from the folders of their ids.

    span: the part of its file that each is.
    """
    parts = [f.video_id.split("/")[:-1] for f in clips]
    first = [folders[0] if folders else "" for folders in parts]
    named = [SPLIT_NAMES.get(folder.lower(), "") for folder in first]
    labels, splits = first, [""] * len(clips)
    if _are_splits(named, list(map(len, parts))):
        # A clip beside the split folders has no split, and its folder is not a class.
        deep = zip(parts, named, strict=True)
        labels = [folders[1] if split and len(folders) > 1 else "" for folders, split in deep]
        splits = named
        strays = [f.video_id for f, split in zip(clips, named, strict=True) if not split]
        if strays:
            warnings.warn(
                f"{len(strays)} clips (such as {strays[0]}) stand beside the folders train, val and "
                "test, so they get no label and no split: move them into a class of one of these",
                Unplaced,
                stacklevel=2,
            )
    columns: dict[str, list[Any]] = {n: [getattr(f, n) for f in clips] for n in Listed._fields}
    columns |= {"label": [label.strip() for label in labels], "split": splits}
    columns |= {"group": [ucf_group(f.video_id) for f in clips]}
    if not span.whole:
        columns |= {"video_id": [span.named(f.video_id) for f in clips]}
        columns |= {"file": [f.video_id for f in clips]}
    return make_catalog(columns, [span] * len(clips))


def _are_splits(named: Sequence[str], depths: Sequence[int]) -> bool:
    """Whether the first folders are splits rather than classes.

    named: each clip's split by its first folder, "" for another name. depths: its number of folders.
    They are where all are named so, and where clips stand beside such folders, too, if those are at
    least a train and another one with classes in them.
    """
    deep = {split for split, depth in zip(named, depths, strict=True) if depth > 1}
    flat = {split for split, depth in zip(named, depths, strict=True) if depth == 1}
    return all(named) or ("train" in deep and len(deep - {""}) > 1 and not flat - {""})


def list_one(path: str, span: Span = WHOLE) -> pd.DataFrame:
    """The catalog of one file, or a part of it, whatever its name ends in; its id is its name.

    Raises `ConfigError` for what is no regular file, or does not answer.
    """
    try:
        read_start(path)
        state = answered(path, lambda: os.stat(path))
    except (NotRegular, NoAnswer) as error:
        raise ConfigError(f"{path!r} cannot be a clip: {error.strerror}") from None
    except OSError as error:
        raise ConfigError(f"{path!r} cannot be read: {error.strerror}") from None
    listed = Listed(os.path.basename(path), path, state.st_size, state.st_mtime_ns)
    return by_folders([listed], span)


def is_clip_name(name: str) -> bool:
    """Whether a file of this name counts as a clip."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in CLIP_ENDINGS


class _Folder(NamedTuple):
    path: str
    prefix: str  # of the ids of what lies in it
    above: frozenset[tuple[int, int]]  # the folders that lead here, by device and inode


def _left_out(endings: Counter[str], root: str) -> str:
    """One line about files that are not taken for clips, by ending."""
    shown = [f"{count} {ending}" for ending, count in endings.most_common(_MOST_ENDINGS)]
    more = f" and {len(endings) - len(shown)} more endings" if len(endings) > len(shown) else ""
    total = endings.total()
    files, are = ("files", "are") if total > 1 else ("file", "is")
    return (
        f"{total} {files} under {root!r} {are} left "
        f"out, by the ending of the name: {', '.join(shown)}{more}; list clips of other endings in a "
        "manifest"
    )


def _walk(root: str, left_out: Counter[str]) -> Iterator[Listed]:
    """The clips of a folder and of those below it, in no order; counts the other files' endings."""
    pending = [_Folder(root, "", frozenset())]
    visits: Counter[tuple[int, int]] = Counter()
    while pending:
        folder = pending.pop()
        here, entries = _list(folder.path)
        if here in folder.above:
            continue  # a link back to a parent
        visits[here] += 1
        if visits[here] > MOST_WAYS:
            raise ConfigError(
                f"links lead to the folder {folder.path!r} in more than {MOST_WAYS} ways: "
                "remove the links, or list the clips in a manifest"
            )
        for name, state in entries.items():
            path = os.path.join(folder.path, name)
            if name != name.encode(errors="replace").decode():
                warnings.warn(
                    f"{path!r} is left out: its name is not UTF-8; rename it", LeftOut, stacklevel=2
                )
            elif state is not None and stat.S_ISDIR(state.st_mode):
                if not name.endswith(".zarr"):
                    pending.append(_Folder(path, f"{folder.prefix}{name}/", folder.above | {here}))
            elif state is not None and not stat.S_ISREG(state.st_mode):
                continue
            elif is_clip_name(name):
                there = ABSENT if state is None else (state.st_size, state.st_mtime_ns)
                yield Listed(folder.prefix + name, path, *there)
            elif state is not None:
                left_out[os.path.splitext(name)[1].lower() or "without an ending"] += 1


def _list(folder: str) -> tuple[tuple[int, int], dict[str, os.stat_result | None]]:
    """(device and inode, state of each entry that is not hidden) of a folder; None for a bad link.

    Raises `ConfigError` where it may not be listed or entered, or does not answer.
    """

    def touch() -> tuple[tuple[int, int], dict[str, os.stat_result | None]]:
        state = os.stat(folder)
        with os.scandir(folder) as entries:
            seen = {
                entry.name: _look(entry)
                for entry in entries
                if not entry.name.startswith(".") and entry.name not in _NOT_OURS
            }
        return (state.st_dev, state.st_ino), seen

    try:
        return answered(os.path.join(folder, ""), touch)
    except NoAnswer as error:
        raise ConfigError(
            f"the folder {folder!r} cannot be listed ({error.strerror}): fix the mount"
        ) from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise ConfigError(
                f"the folder {folder[:200]!r}… lies too deep to be listed: move it up"
            ) from None
        raise ConfigError(
            f"the folder {folder!r} cannot be listed ({error.strerror}): "
            "give the right to read and enter it, or move it away"
        ) from None


def _look(entry: os.DirEntry[str]) -> os.stat_result | None:
    """An entry's state; None for a link that dangles or forms a cycle."""
    try:
        return entry.stat()
    except PermissionError:
        raise  # the folder may be listed, but not entered
    except OSError:
        return None
