"""Long files as several rows: each as long as a sequence's steps, one after the other."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import Future
from typing import Any

import numpy as np
import pandas as pd

from flows.extract.plan import tried_again
from flows.settings.features import FeaturesSettings
from pipeline.errors import ConfigError, UnreadableClip
from pipeline.features.catalog.remote import is_remote, local_path
from pipeline.features.catalog.table import ABSENT, UNKNOWN
from pipeline.features.decoders import DecoderPool
from pipeline.features.decoding.process import Limits
from pipeline.features.decoding.values import FramePlan
from pipeline.spans import BOUNDS, WHOLE, Span
from pipeline.spec import Sampling
from store import FAILED, GONE, READY

Listed = tuple[pd.DataFrame, np.ndarray]
"""The catalog, and which of its clips are wanted (bool per clip)."""


def splits_long(settings: FeaturesSettings, existing: Any | None) -> bool:
    """Whether long files become several rows: as asked, else as the store was made.

    Raises `ConfigError` with another rule than `fps`, by which alone a row has a length in seconds.
    """
    asked = settings.long
    if asked == "auto" and existing is not None:
        asked = str(existing.attributes.get("long", "cut"))
    if asked == "split" and not settings.sampling.startswith("fps"):
        raise ConfigError(
            f"--long split cuts files by time, and --sampling {settings.sampling} counts frames: use "
            "--sampling fps=N with it"
        )
    return asked == "split"


def split_long(
    listed: Listed,
    table: pd.DataFrame | None,
    sampling: Sampling,
    *,
    timeout_s: float,
    retry: Collection[str] = (),
) -> Listed:
    """The catalog with a row for every `steps` moments of each file, and which of them are wanted.

    A file that is no longer than a sequence stays one row, and so does a part that a manifest names. How
    long a file is, is asked of its packets; while its bytes stand, the rows that the store has of it
    say so. table: of a store whose rows were made so. timeout_s: for one file, before its size adds to
    it. retry: reasons of failures that are tried again; a file with such a row is asked again. Raises
    `ConfigError` for files at URLs.
    """
    catalog, wanted = listed
    row_s = sampling.steps / sampling.fps
    bounds = zip(*(catalog[name].tolist() for name in BOUNDS), strict=True)
    named = [Span.of(*ends) for ends in bounds]
    known = {} if table is None else _known(table, row_s, retry)
    states = list(zip(catalog["size_bytes"].tolist(), catalog["mtime_ns"].tolist(), strict=True))
    asked: dict[int, Future[list[int]]] = {}
    pool = DecoderPool(FramePlan(size=8), limits=Limits(base_s=timeout_s), ahead_bytes=1 << 20)
    spans: list[list[Span]] = []
    with pool:
        for i, (path, name) in enumerate(zip(catalog["path"], catalog["video_id"], strict=True)):
            if not named[i].whole or states[i] in (ABSENT, UNKNOWN) or (name, states[i]) in known:
                continue
            if is_remote(path):
                raise ConfigError(
                    f"--long split asks every file for its length, and {path} is at a URL: copy it here"
                )
            first_s = sampling.offset / sampling.fps
            size = states[i][0]
            asked[i] = pool.rows(local_path(path), size, row_s=row_s, first_s=first_s)
        for i, name in enumerate(catalog["video_id"]):
            if i in asked:
                spans.append(_asked(asked[i], row_s))
            else:
                spans.append(
                    known.get((name, states[i]), [named[i]]) if named[i].whole else [named[i]]
                )
    return _expanded(catalog, spans), np.repeat(wanted, [len(of_file) for of_file in spans])


def _asked(rows: Future[list[int]], row_s: float) -> list[Span]:
    """The parts of a file whose rows were asked for; one that cannot be read fails as a whole."""
    try:
        numbers = rows.result()
    except UnreadableClip:
        return [WHOLE]
    if numbers == [0]:
        return [WHOLE]
    last = numbers[-1]
    # The last one has no end: whatever the file still has behind it is seen.
    return [Span(row * row_s, None if row == last else (row + 1) * row_s) for row in numbers]


def _known(
    table: pd.DataFrame, row_s: float, retry: Collection[str]
) -> dict[tuple[str, tuple[int, int]], list[Span]]:
    """(id of the file, its size and time) → its parts, of files whose rows were made by this rule.

    A file whose length could not be asked is one row. That says nothing: while it is to be made, and
    where it was cut off, the file is asked again.
    """
    there = table[(table["status"] != GONE) & (table["start_frame"] < 0)]
    status, reasons = there["status"].to_numpy(), there["reason"].to_numpy().astype(str)
    says = (status == READY) & (reasons != "cut_off")
    says |= (status == FAILED) & ~tried_again(reasons, retry)
    found: dict[tuple[str, tuple[int, int]], list[tuple[Span, bool]]] = {}
    files = there["file"].where(there["file"] != "", there["video_id"])
    of_rows = zip(
        files, there["size_bytes"].tolist(), there["mtime_ns"].tolist(),
        there["start_s"].tolist(), there["end_s"].tolist(), says.tolist(), strict=True,
    )  # fmt: skip
    for file, size, time, start, end, said in of_rows:
        span = Span.of(start, end)
        found.setdefault((file, (size, time)), []).append((span, said or not span.whole))
    known = {}
    for key, rows in found.items():
        spans = sorted((span for span, _ in rows), key=lambda span: span.order)
        regular = all(said and _is_row(span, row_s) for span, said in rows)
        if regular and not spans[0].start_s and spans[-1].end_s is None:
            known[key] = spans
    return known


def _is_row(span: Span, row_s: float) -> bool:
    number = round((span.start_s or 0.0) / row_s)
    ends = span.end_s is None or span.end_s == (number + 1) * row_s
    return ends and (span.start_s or 0.0) == number * row_s


def _expanded(catalog: pd.DataFrame, spans: list[list[Span]]) -> pd.DataFrame:
    """The catalog with each clip as often as it has parts; the parts of a file are one group."""
    counts = [len(of_file) for of_file in spans]
    parted = np.repeat(np.array(counts) > 1, counts)
    rows = catalog.loc[catalog.index.repeat(counts)].reset_index(drop=True)
    flat = [span for of_file in spans for span in of_file]
    columns = {name: np.array([span.columns[name] for span in flat]) for name in BOUNDS}
    ids, groups = rows["video_id"].to_numpy(object), rows["group"].to_numpy(object)
    named = [
        span.named(name) if part else name
        for span, name, part in zip(flat, ids, parted, strict=True)
    ]
    rows = rows.assign(**columns).astype({name: rows[name].dtype for name in BOUNDS})
    return rows.assign(
        video_id=pd.array(named, dtype="str"),
        file=pd.array(np.where(parted, ids, rows["file"].to_numpy(object)), dtype="str"),
        group=pd.array(np.where(parted & (groups == ""), ids, groups), dtype="str"),
    )
