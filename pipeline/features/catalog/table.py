"""The catalog's table: its columns, UCF's groups and splits, and a choice of its clips."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.errors import ConfigError, did_you_mean
from pipeline.features.decoding.values import ClipSource
from pipeline.spans import BOUNDS, WHOLE, Span

_TEXTS = ("video_id", "path", "file", "label", "split", "group")
_NUMBERS = ("size_bytes", "mtime_ns")
CATALOG_COLUMNS = [*_TEXTS, *_NUMBERS, *BOUNDS]
"""`file`: the id that the whole file would have, where the clip's own is another; empty elsewhere."""

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "development": "val",
    "test": "test",
    "testing": "test",
}
"""What a folder or a manifest may call a split → the name that is stored."""

ABSENT = (-1, 0)
"""(size_bytes, mtime_ns) of a file that is not there."""

UNKNOWN = (-1, -1)
"""(size_bytes, mtime_ns) of a clip whose service or mount did not answer."""


def make_catalog(
    columns: Mapping[str, Sequence[Any] | NDArray[Any]], spans: Sequence[Span] = ()
) -> pd.DataFrame:
    """A frame of `CATALOG_COLUMNS` from equally long sequences: text as str, numbers as int64.

    spans: which part of its file each clip is; all are whole files where there are none.
    """
    count = len(columns["video_id"])
    columns = {"file": [""] * count, **columns}
    typed: dict[str, Any] = {n: pd.array(list(columns[n]), dtype="str") for n in _TEXTS}
    typed |= {name: np.asarray(columns[name], dtype=np.int64) for name in _NUMBERS}
    rows = [tuple(span.columns.values()) for span in spans]
    for i, name in enumerate(BOUNDS):
        values: Any = [row[i] for row in rows] if spans else np.full(count, WHOLE.columns[name])
        typed[name] = np.asarray(values, dtype=np.float64 if name.endswith("_s") else np.int64)
    return pd.DataFrame(typed)


def clip_sources(clips: pd.DataFrame) -> list[ClipSource]:
    """The clips of a catalog as the extractor takes them."""
    bounds = zip(*(clips[name].tolist() for name in BOUNDS), strict=True)
    each = zip(clips["path"], clips["size_bytes"].tolist(), bounds, strict=True)
    return [ClipSource(path, size, Span.of(*ends)) for path, size, ends in each]


def narrow(
    catalog: pd.DataFrame, *, classes: Sequence[str] = (), limit: int = 0, per_class: int = 0
) -> NDArray[np.bool_]:
    """Which clips of a catalog are wanted: (clips,) bool.

    classes: only these labels. per_class: at most so many of each label, the first ones.
    limit: at most so many in all, spread evenly over the labels. 0 and () choose everything.
    Raises `ConfigError` for a class that no clip has.
    """
    labels = catalog["label"].astype(str)
    known = sorted(set(labels))
    for name in classes:
        if name not in known:
            hint = did_you_mean(name, known, most=20)
            raise ConfigError(f"no clip has the class {name!r}: {hint}")
    for name, number in (("limit", limit), ("per_class", per_class)):
        if number < 0:
            raise ConfigError(f"{name} is {number}: give 0 for all, or a number of clips")
    place = labels.groupby(labels).cumcount().to_numpy()
    chosen = labels.isin(list(classes)).to_numpy() if classes else np.ones(len(catalog), bool)
    positions = np.flatnonzero(chosen & (place < per_class) if per_class else chosen)
    if limit:
        # The first of every class, then the second of every class, and so on.
        positions = positions[np.argsort(place[positions], kind="stable")[:limit]]
    result = np.zeros(len(catalog), dtype=np.bool_)
    result[positions] = True
    return result


_NAME = re.compile(r"v_.+_(g\d+)_c\d+\.[^./]+$")
_LIST = re.compile(r"(train|test)list(\d+)\.txt$")


def ucf_group(name: str) -> str:
    """The group in a UCF name, shared by all classes; empty for any other name.

    >>> ucf_group("Archery/v_Archery_g03_c01.avi")
    'g03'
    """
    match = _NAME.search(name)
    return match[1] if match and os.path.basename(name).startswith("v_") else ""


def apply_ucf_splits(catalog: pd.DataFrame, where: str) -> pd.DataFrame:
    """The catalog with `split`, and `label` where it was empty, taken from UCF's lists.

    where: the folder of `trainlistNN.txt` and `testlistNN.txt` (and `classInd.txt`, which is held
    against them); `DIR:2` takes list 02, else the first there is. Clips are matched by file name,
    which is unique in UCF. Clips in neither list get no split.
    Raises `ConfigError` where the lists are missing, contradict each other, or name no clip here.
    """
    folder, number = _which_list(where)
    index = folder / "classInd.txt"
    pairs = [line.split(maxsplit=1) for line in _lines(index)] if index.exists() else []
    classes = {pair[0]: pair[1] for pair in pairs if len(pair) == 2}
    split_of: dict[str, str] = {}
    label_of: dict[str, str] = {}
    for split in ("train", "test"):
        for line in _lines(folder / f"{split}list{number}.txt"):
            clip, _, class_number = line.partition(" ")
            name, label = os.path.basename(clip), os.path.dirname(clip)
            if split_of.setdefault(name, split) != split:
                raise ConfigError(f"{name} is in both lists {number} of {folder}: mend the lists")
            indexed = classes.get(class_number.strip(), "")
            if label and indexed and label != indexed:
                raise ConfigError(
                    f"{clip} has number {class_number.strip()} in list {number}, which classInd "
                    f"gives to {indexed}: take lists of one release"
                )
            label_of[name] = label or indexed
    files = catalog["file"].where(catalog["file"] != "", catalog["video_id"])
    names = [os.path.basename(file) for file in files]
    splits = [split_of.get(name, "") for name in names]
    if not any(splits):
        raise ConfigError(
            f"none of the {len(catalog)} clips is in the lists {number} of {folder}: "
            "look at both paths"
        )
    labelled = zip(catalog["label"], names, strict=True)
    labels = [label or label_of.get(name, "") for label, name in labelled]
    return catalog.assign(split=pd.array(splits, dtype="str"), label=pd.array(labels, dtype="str"))


def _which_list(where: str) -> tuple[Path, str]:
    """The folder and the list's number as its files write it."""
    folder, colon, wish = where.rpartition(":")
    if not colon or not wish.isdecimal() or Path(where).is_dir():
        folder, wish = where, ""
    matches = [_LIST.fullmatch(path.name) for path in Path(folder).glob("*list*.txt")]
    numbers = {int(match[2]): match[2] for match in matches if match is not None}
    if not numbers:
        raise ConfigError(f"there is no trainlistNN.txt in {folder!r}: give UCF's folder of lists")
    number = int(wish) if wish else min(numbers)
    if number not in numbers:
        known = ", ".join(sorted(numbers.values()))
        raise ConfigError(f"there is no list {number} in {folder!r}: it has {known}")
    return Path(folder), numbers[number]


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"there is no {path.name} in {path.parent}: both lists are needed"
        ) from None
    return [line.strip() for line in text.splitlines() if line.strip()]
