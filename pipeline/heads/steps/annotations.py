"""What happens when in long videos: annotations held against the files of a store, and made labels."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.errors import ConfigError
from pipeline.heads.source import Array, Mask
from pipeline.plain import json_digest
from pipeline.spans import Span

BACKGROUND = "background"
"""The label of a step to which no annotation applies."""
SHOWN = 5
_TOUCH_S = 1e-6  # spans that overlap by less than this only touch


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """From when to when something happens in a file: seconds from its first frame, the end exclusive.

    `end_s` is infinite where only a start is given. `line` says where it stands.
    """

    file: str
    start_s: float
    end_s: float
    label: str
    line: str

    def __str__(self) -> str:
        return f"{self.label} {self.start_s:g} to {self.end_s:g} s ({self.line})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotations:
    """Annotations by file, each file's by their starts; a file that is known to have none has ().

    `unknown` are names of videos that the store does not hold, with where they stand.
    """

    by_file: Mapping[str, tuple[Annotation, ...]]
    unknown: tuple[str, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """Every label, sorted."""
        return tuple(sorted({each.label for spans in self.by_file.values() for each in spans}))


def annotations_of(table: pd.DataFrame, where: str, files: Iterable[str]) -> Annotations:
    """The annotations in a table of text, held against the files of a store.

    table: columns `path` or `id`, `start`, `end`, `label`, and `line`, where each row stands. A line
        without a label and bounds says that nothing happens in its file.
    where: what the table was read from, for messages
    files: the ids of the store's files; a video is named by its id, by the end of it, or by the file's
        name without its ending

    Raises `ConfigError` with the line for a span that is empty, inverted or no number, for a label that
    is missing, a name that several files have, and where the store has none of the videos.
    """
    name_column = next((name for name in ("id", "path") if name in table), "")
    absent = [name for name in ("start", "end", "label") if name not in table]
    if absent or not name_column:
        missing = ", ".join([*absent, *(["path"] if not name_column else [])])
        raise ConfigError(
            f"{where} has no column {missing}: annotations have path (or id), start, end and label"
        )
    find = _Files(files)
    by_file: dict[str, list[Annotation]] = {}
    unknown: dict[str, str] = {}
    for name, start, end, label, line in zip(
        *(table[column] for column in (name_column, "start", "end", "label", "line")), strict=True
    ):
        place = f"line {line}" if isinstance(line, int) else str(line)
        file = find(str(name).strip(), f"{where}, {place}")
        if not file:
            unknown.setdefault(str(name), f"{name} ({place})")
            continue
        spans = by_file.setdefault(file, [])
        if label.strip() or str(start).strip() or str(end).strip():
            spans.append(_annotation(file, start, end, label.strip(), (where, place)))
    if not by_file:
        shown = ", ".join(itertools.islice(unknown.values(), SHOWN)) or "no line"
        raise ConfigError(
            f"{where} annotates no video of the store ({shown}): name videos as the store's columns "
            "file and video_id do"
        )
    ordered = {
        file: tuple(sorted(spans, key=lambda each: (each.start_s, each.end_s)))
        for file, spans in sorted(by_file.items())
    }
    return Annotations(by_file=ordered, unknown=tuple(unknown.values()))


def require_single(annotations: Annotations, where: str) -> None:
    """Raise `ConfigError`, which names both, for annotations of one file that overlap."""
    for spans in annotations.by_file.values():
        # The one that ends last so far: a long one may reach over several.
        last = spans[0] if spans else None
        for later in spans[1:]:
            assert last is not None
            if later.start_s < last.end_s - _TOUCH_S:
                raise ConfigError(
                    f"{where}: in {later.file}, {last} and {later} overlap: correct one, or train "
                    "with --multi-label, where several labels may apply at a time"
                )
            last = max(last, later, key=lambda each: each.end_s)


def targets_of(times: Array, spans: Sequence[Annotation], classes: Sequence[str]) -> Mask:
    """Which labels apply at each step, (n, classes) bool.

    times: (n,) seconds in the whole file. Where none applies and `BACKGROUND` is a class, it does.
    """
    number = {name: i for i, name in enumerate(classes)}
    targets = np.zeros((len(times), len(classes)), dtype=np.bool_)
    for span in spans:
        inside = (times >= span.start_s) & (times < span.end_s)
        targets[inside, number[span.label]] = True
    if BACKGROUND in number:
        targets[~targets.any(axis=1), number[BACKGROUND]] = True
    return targets


def fingerprint(spans: Sequence[Annotation]) -> str:
    """The annotations of one file as a short text; equal texts, equal annotations.

    >>> fingerprint([])[:11]
    '0 segments '
    """
    values = [[each.start_s, min(each.end_s, 1e300), each.label] for each in spans]
    plural = "s" * (len(spans) != 1)
    return f"{len(spans)} segment{plural} {json_digest(values)[:12]}"


class _Files:
    """Finds the file that a name means."""

    def __init__(self, files: Iterable[str]) -> None:
        self._files = set(files)
        self._by_end: dict[str, set[str]] = {}
        for file in self._files:
            parts = file.split("/")
            ends = {"/".join(parts[i:]) for i in range(len(parts))}
            for end in ends | {os.path.splitext(end)[0] for end in ends}:
                self._by_end.setdefault(end, set()).add(file)

    def __call__(self, name: str, where: str) -> str:
        """The file's id, or "" if there is none. Raises `ConfigError` if there are several."""
        if name in self._files:
            return name
        # A path as another folder has it ends in an id.
        tails = ["/".join(name.split("/")[i:]) for i in range(name.count("/") + 1)]
        for tail in tails:
            found = self._by_end.get(tail, set()) or self._by_end.get(f"v_{tail}", set())
            if len(found) > 1:
                raise ConfigError(
                    f"{where}: {name} is the name of {len(found)} files "
                    f"({', '.join(sorted(found)[:2])}): write the whole id of one"
                )
            if found:
                return next(iter(found))
        return ""


def _annotation(file: str, start: str, end: str, label: str, where: tuple[str, str]) -> Annotation:
    place = ", ".join(where)
    if not label:
        raise ConfigError(f"{place}: the span from {start} to {end} has no label: give it one")
    try:
        span = Span.of(start, end)
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from None
    return Annotation(
        file=file,
        start_s=span.start_s or 0.0,
        end_s=math.inf if span.end_s is None else span.end_s,
        label=label,
        line=where[1],
    )
