"""ActivityNet's JSON as a manifest: `database` → video → `annotations` → `segment`, `label`."""

from __future__ import annotations

import json
import os
from typing import Any

import pandas as pd

from pipeline.errors import ConfigError
from pipeline.features.catalog import remote
from pipeline.features.catalog.folders import is_clip_name
from pipeline.features.catalog.manifest_text import LINE, text_of
from pipeline.features.files import NoAnswer, answered

_SUBSETS = {"training": "train", "validation": "val", "testing": "test"}


def read_activitynet(manifest: str) -> pd.DataFrame:
    """Path, label, split, start and end of every annotation as text, and `LINE`, where it stands.

    A video without annotations is a row of its whole file, without a label. Its file is `path` or
    `file_name` of its entry, if it has one; else the clip of its name, or `v_` and its name, that lies
    beside the manifest or in the folder named like it.
    Raises `ConfigError` for what has another form.
    """
    try:
        database = json.loads(text_of(manifest))["database"]
        videos = dict(database)
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ConfigError(
            f"{manifest} is no manifest: a JSON manifest has an object `database` with a member for "
            "each video, as ActivityNet's"
        ) from None
    there = _clips_beside(manifest)
    rows: list[dict[str, Any]] = []
    for name, video in videos.items():
        where = f"database.{name}"
        if not isinstance(video, dict) or not isinstance(video.get("annotations", []), list):
            raise ConfigError(f"{manifest}, {where}: give an object with a list `annotations`")
        path = str(video.get("path") or video.get("file_name") or "")
        subset = str(video.get("subset", ""))
        row = {"path": path or there.get(name) or there.get(f"v_{name}") or f"{name}.mp4"}
        row |= {"split": _SUBSETS.get(subset, subset), "label": "", "start": "", "end": ""}
        annotations = video.get("annotations", [])
        if not annotations:
            rows.append(row | {LINE: where})
        for number, annotation in enumerate(annotations):
            place = f"{where}.annotations[{number}]"
            rows.append(row | _annotated(annotation, f"{manifest}, {place}") | {LINE: place})
    names = ("path", "label", "split", "start", "end", LINE)
    return pd.DataFrame({name: [row[name] for row in rows] for name in names}, dtype=object)


def _annotated(annotation: Any, where: str) -> dict[str, str]:
    """The label and the bounds of an annotation, as text."""
    try:
        start, end = annotation["segment"]
        numbers = [float(start), float(end)]
        label = annotation.get("label", "")
        if any(isinstance(value, bool) for value in (start, end)) or not isinstance(label, str):
            raise TypeError
    except (TypeError, KeyError, ValueError, AttributeError):
        raise ConfigError(
            f"{where}: an annotation has `segment`, a list of two numbers of seconds, and `label`, a text"
        ) from None
    return {"label": label, "start": repr(numbers[0]), "end": repr(numbers[1])}


def _clips_beside(manifest: str) -> dict[str, str]:
    """Name without its ending → path relative to the manifest's folder, of the clips that lie there."""
    if remote.is_remote(manifest):
        return {}
    folder, beside = os.path.dirname(manifest), os.path.splitext(os.path.basename(manifest))[0]
    found: dict[str, str] = {}
    for prefix in ("", f"{beside}/"):
        try:
            inside = os.path.join(folder, prefix)
            names = sorted(answered(inside, lambda inside=inside: os.listdir(inside)))  # type: ignore[misc]
        except (OSError, NoAnswer):
            continue
        for name in filter(is_clip_name, names):
            found.setdefault(os.path.splitext(name)[0], prefix + name)
    return found
