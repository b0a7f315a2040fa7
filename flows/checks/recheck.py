"""Extract some ready clips again and compare the result with what the store has."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from pipeline.errors import ConfigError
from pipeline.features.catalog import clip_sources, discover
from pipeline.features.extraction import ClipResult, ClipSource
from pipeline.features.files import sha256_if_readable
from pipeline.features.stage import FirstStage, stored_stage
from pipeline.spans import BOUNDS, Span
from pipeline.spec import Spec
from store import Store

# Engines of one precision agree to 0.999 and better on real frames; another frame is far below.
LEAST_COSINE = 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class Recheck:
    """The result: `identical` of `checked` clips have the same bytes again.

    different: a frame of `row`, `video_id` and `what`, as in `store.Report.damaged` · least_cosine:
    the worst agreement of any real step · skipped: ready rows whose clip does not exist, or
    has changed since.
    """

    checked: int = 0
    identical: int = 0
    least_cosine: float = 1.0
    skipped: int = 0
    different: pd.DataFrame = field(
        default_factory=lambda: pd.DataFrame(columns=["row", "video_id", "what"])
    )


def recheck(
    source: Store, count: int, *, videos: str = "", weights: str = "", seed: int = 0
) -> Recheck:
    """Extract `count` random ready clips again and compare frame indices, mask and features.

    videos: where the clips are (default: where the last run found them) · weights: the setting that
    leads to the backbone's weights (default: the last run's) · seed: of the choice.
    Raises `ConfigError` where the clips or the weights are not known or not the store's.
    """
    videos = videos or source.attributes.get("clips", "")
    if not videos:
        raise ConfigError(f"{source.url} does not say where its clips are: pass --videos")
    remembered = source.attributes.get("first_stage", {})
    spec = Spec.from_dict(source.spec)
    stage = stored_stage(spec, remembered, owner=source.url, weights=weights)
    rows, clips, skipped = _choose(source, discover(videos), count, seed)
    if not len(rows):
        return Recheck(skipped=skipped)
    with FirstStage.load(stage) as first_stage:
        results = first_stage.extractor.extract(clips)
    return _compare(source, rows, results, skipped)


def _choose(
    source: Store, catalog: pd.DataFrame, count: int, seed: int
) -> tuple[np.ndarray, list[ClipSource], int]:
    """Rows in random order whose clip is still the one they were made from, with their clips."""
    table = source.table()
    ready = table.index[table["state"] == "ready"].to_numpy()
    at = pd.Index(catalog["video_id"]).get_indexer(pd.Index(table["video_id"]))
    if source.attributes.get("long") == "split":
        # The list has the files, and their parts follow from their lengths: the rows say which.
        files = pd.Index(table["file"].where(table["file"] != "", table["video_id"]))
        at = np.where(at < 0, pd.Index(catalog["video_id"]).get_indexer(files), at)
    rows: list[int] = []
    chosen: list[Any] = []
    skipped = 0
    hash_of = functools.cache(sha256_if_readable)  # of a file, whatever parts of it are chosen
    for row in np.random.default_rng(seed).permutation(ready).tolist():
        if len(rows) == count:
            break
        position = at[table.index.get_loc(row)]
        clip = catalog.iloc[position].copy() if position >= 0 else None
        if clip is not None and clip["video_id"] != table["video_id"][row]:
            clip[list(BOUNDS)] = table.loc[row, list(BOUNDS)]
        if clip is not None and unchanged(clip, table.loc[row], hash_of):
            rows.append(row)
            chosen.append(clip)
        else:
            skipped += 1
    return (
        np.array(rows, dtype=np.int64),
        clip_sources(pd.DataFrame(chosen, columns=catalog.columns)),
        skipped,
    )


def unchanged(clip: Any, row: Any, hash_of: Callable[[str], str] = sha256_if_readable) -> bool:
    """Whether a clip of a catalog is still the file, or the part of one, that a row was made from."""
    if Span.of(*clip[list(BOUNDS)]) != Span.of(*row[list(BOUNDS)]):
        return False
    same_size = bool(clip["size_bytes"] == row["size_bytes"])
    if not same_size or clip["mtime_ns"] == row["mtime_ns"]:
        return same_size
    return bool(hash_of(clip["path"]) == row["sha256"] != "")


def _compare(source: Store, rows: np.ndarray, results: list[ClipResult], skipped: int) -> Recheck:
    stored = source.load(rows)
    position_of = {int(row): i for i, row in enumerate(stored.rows)}
    frames, _ = source.steps_of(rows)
    names = source.table()["video_id"]
    different: list[tuple[int, str, str]] = []
    identical, least = 0, 1.0
    for i, (row, result) in enumerate(zip(rows.tolist(), results, strict=True)):
        if row not in position_of:
            continue  # damaged: the check of the digests has named it
        before, mask = stored.features[position_of[row]], stored.mask[position_of[row]]
        what = ""
        if result.features is None:
            what = f"the clip fails now: {result.reason}"
        elif not (mask == result.mask).all() or not (frames[i] == result.frame_index).all():
            what = "other frames are picked now"
        elif before.tobytes() == result.features.tobytes():
            identical += 1
        else:
            cosine = _cosines(before[mask], result.features[mask]).min()
            least = min(least, float(cosine))
            if cosine < LEAST_COSINE:
                what = f"features are others now (cosine {cosine:.4f})"
        if what:
            different.append((row, str(names[row]), what))
    return Recheck(
        checked=len(rows),
        identical=identical,
        least_cosine=least,
        skipped=skipped,
        different=pd.DataFrame(different, columns=["row", "video_id", "what"]),
    )


def _cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Of each step's vectors, (steps, …) → (steps,); 1 where both are zero."""
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (first, second))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    products: np.ndarray = np.einsum("ij,ij->i", a, b)
    return np.asarray(np.divide(products, lengths, out=np.ones_like(products), where=lengths > 0))
