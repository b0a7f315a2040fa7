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
        told = json.loads(text_of(manifest), object_pairs_hook=_members)
        videos = told["database"]
        if not isinstance(videos, dict):
            raise TypeError
    except _Twice as twice:
        raise ConfigError(
            f"{manifest} has two members {twice.args[0]!r} in one object: keep one"
        ) from None
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ConfigError(
            f"{manifest} is no manifest: a JSON manifest has an object `database` with a member for "
            "each video, as ActivityNet's"
        ) from None
    there = _clips_beside(manifest)
    rows: list[dict[str, Any]] = []
    for name, video in videos.items():
        where = _shown(f"database.{name}")
        if not isinstance(video, dict) or not isinstance(video.get("annotations", []), list):
            raise ConfigError(f"{manifest}, {where}: give an object with a list `annotations`")
        path, subset = video.get("path") or video.get("file_name") or "", video.get("subset") or ""
        if not (_is_text(name) and _is_text(path) and _is_text(subset)):
            raise ConfigError(
                f"{manifest}, {where}: a name, a path or a subset is no text that can be written"
            )
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
        if any(isinstance(value, bool) for value in (start, end)) or not _is_text(label):
            raise TypeError
    except (TypeError, KeyError, ValueError, OverflowError, AttributeError):
        raise ConfigError(
            f"{where}: an annotation has `segment`, a list of two numbers of seconds, and `label`, a text"
        ) from None
    return {"label": label, "start": repr(numbers[0]), "end": repr(numbers[1])}


class _Twice(Exception):
    """An object has two members of this name, of which Python would keep the last."""


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members:
            raise _Twice(name)
        members[name] = value
    return members


def _is_text(value: Any) -> bool:
    """Whether it is a text; half of a pair of surrogates, which JSON can spell, is none."""
    return isinstance(value, str) and not any("\ud800" <= sign <= "\udfff" for sign in value)


def _shown(text: str) -> str:
    """A text that a message can hold, whatever it is."""
    return text.encode("utf-8", "backslashreplace").decode()


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
