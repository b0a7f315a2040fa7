"""Where a clip's file goes: its id, where that is a plain relative path, else a name made of it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

_LONGEST = 200  # bytes of one component, with the ending and a temporary name's still below 255
_RESERVED = re.compile(r'[\x00-\x1f\\:*?"<>|]')


def file_names(ids: Iterable[str], ending: str) -> list[str]:
    """A relative path for every id, all different, none leading out of the folder.

    >>> file_names(["run/a.mp4", "../b.mp4"], ".npy")
    ['run/a.mp4.npy', '_/b.mp4-5f2e78aa00.npy']
    """
    ids = list(ids)
    # A file may not be another's folder, nor its twin where case does not count.
    seen: set[str] = set()
    folders = {"/".join(n.split("/")[:i]).lower() for n in ids for i in range(1, n.count("/") + 1)}
    names = []
    for name in ids:
        path = f"{name}{ending}"
        if not _is_plain(name) or path.lower() in seen or path.lower() in folders:
            stem = _RESERVED.sub("_", name.rsplit("/", 1)[-1]).strip(". ")
            stem = stem.encode()[:120].decode(errors="ignore")
            path = f"_/{stem}-{hashlib.sha256(name.encode()).hexdigest()[:10]}{ending}"
        seen.add(path.lower())
        names.append(path)
    return names


def _is_plain(name: str) -> bool:
    parts = name.split("/")
    return parts[0] != "_" and all(
        part == part.strip(" ")
        and part not in ("", ".", "..")
        and len(part.encode()) <= _LONGEST
        and not _RESERVED.search(part)
        for part in parts
    )
