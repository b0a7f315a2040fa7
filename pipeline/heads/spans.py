"""Clips that are parts of one file: which part each is, and which of them have frames in common."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.spans import BOUNDS, Span, split_fragment

Names = npt.NDArray[Any]
"""(clips,) text objects."""
Interval = tuple[str, float, float]
"""Of what the bounds are (`t`, `frames`, or `` for all of the file), the first, the last (exclusive)."""

SPAN = "span"
"""The column of `fragments` in a run's list of clips."""


def fragments(clips: pd.DataFrame) -> Names:
    """The part of its file that each clip is, (clips,) text such as `t=1,3`; "" for the whole file."""
    if SPAN in clips:
        return clips[SPAN].fillna("").astype(str).to_numpy(dtype=object)
    texts = np.full(len(clips), "", dtype=object)
    if not set(BOUNDS) <= set(clips.columns):
        return texts
    bounds = clips[list(BOUNDS)]
    given = bounds["start_s"].notna() | (bounds["start_frame"] >= 0)
    at = np.flatnonzero(given.to_numpy())
    rows = zip(*(bounds[name].to_numpy()[at].tolist() for name in BOUNDS), strict=True)
    texts[at] = [Span.of(*row).fragment for row in rows]
    return texts


def whole_files(clips: pd.DataFrame) -> Names:
    """The id of the file that each clip is, or is a part of, (clips,) text."""
    ids = clips["video_id"].astype(str).to_numpy(dtype=object)
    if "file" not in clips:
        return ids
    files = clips["file"].astype(str).to_numpy(dtype=object)
    return np.where(files == "", ids, files).astype(object)


def joined_parts(keys: Names) -> Names:
    """Keys of contents, those of parts that have frames in common made equal, directly or by others.

    keys: (clips,) text, `KEY#t=1,3` for a part of the file KEY and KEY for all of it; "" where unknown.
    """
    if not any("#" in key for key in keys):
        return keys
    joined = keys.copy()
    of_file: dict[str, list[tuple[Interval, str]]] = {}
    for key in sorted(set(keys) - {""}):
        file, interval = interval_of(key)
        of_file.setdefault(file, []).append((interval, key))
    names: dict[str, str] = {}
    for file, parts in of_file.items():
        # Seconds and frames cannot be compared without the file: all are taken to overlap then.
        mixed = len({kind for (kind, _, _), _ in parts if kind}) > 1
        end, name = -math.inf, file
        for (_, first, last), key in sorted(parts, key=lambda part: part[0][1:]):
            if first >= end and not mixed:
                name = key
            names[key] = name
            end = max(end, last)
    joined[:] = [names.get(key, key) for key in keys]
    return joined


def overlapping(keys: Names, known: Iterable[str]) -> npt.NDArray[np.bool_]:
    """Which of these keys have frames in common with one of the known, (clips,) bool."""
    of_file: dict[str, list[Interval]] = {}
    for key in known:
        file, interval = interval_of(key)
        of_file.setdefault(file, []).append(interval)
    found = np.zeros(len(keys), dtype=np.bool_)
    for i, key in enumerate(keys):
        file, mine = interval_of(key)
        found[i] = any(_overlap(mine, other) for other in of_file.get(file, ()))
    return found


def interval_of(key: str) -> tuple[str, Interval]:
    """The file and the interval of a key."""
    if "#" not in key:
        return key, ("", -math.inf, math.inf)
    file, span = split_fragment(key)
    if span.start_frame is not None:
        end = math.inf if span.end_frame is None else span.end_frame
        return file, ("frames", span.start_frame, end)
    return file, ("t", span.start_s or 0.0, math.inf if span.end_s is None else span.end_s)


def _overlap(one: Interval, other: Interval) -> bool:
    if one[0] and other[0] and one[0] != other[0]:
        return True
    return one[1] < other[2] and other[1] < one[2]
