"""Leak checks of a store's clips: by what it knows of their files, and by one frame's border."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import store
from flows.checks.recheck import unchanged
from flows.train.shared import load_stores
from pipeline.errors import ConfigError
from pipeline.features.borders import read_borders
from pipeline.features.catalog import discover
from pipeline.features.extraction import ClipSource
from pipeline.heads.clips import Clips
from pipeline.heads.config import TrainConfig
from pipeline.heads.identity import Identity
from pipeline.heads.leaks import BORDER, Hint, check_leaks, file_hints
from pipeline.heads.plan import make_splits
from pipeline.heads.run_folder import read_config, recorded_splits
from pipeline.heads.splits import Split

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Which clips are checked, and under which folds.

    store: its address; empty for that of the run · run: the run whose folds are used; None: those that
    `config` cuts · videos: where the clips are (default: where they were) · border: whether to read them
    """

    store: str
    run: Path | None
    config: TrainConfig
    videos: str = ""
    border: bool = True


def checked_leaks(asked: Asked, on_read: OnProgress, on_check: OnProgress) -> dict[str, Any]:
    """The record of the leak checks; see `pipeline.heads.leaks`.

    Raises `ConfigError` for a run whose clips are no longer in the store, or folds that cannot be cut.
    """
    url = asked.store
    if asked.run is not None:
        url = url or str(read_config(asked.run).get("store", {}).get("url", ""))
    if not url:
        raise ConfigError(f"{asked.run} does not say which store it was trained from: pass --store")
    clips = load_stores(url).clips
    clips, splits = _splits(clips, asked)
    border = _border(clips, asked, on_read)
    return {
        "store": url,
        **check_leaks(clips, splits, [border, *file_hints(clips.table)], on_check),
    }


def _splits(clips: Clips, asked: Asked) -> tuple[Clips, Sequence[Split]]:
    if asked.run is None:
        return clips, make_splits(clips, asked.config)
    identity = Identity.load(asked.run)
    if identity is not None:
        clips = identity.align(clips, f"the run {asked.run}")
    return clips, recorded_splits(read_config(asked.run))


def _border(clips: Clips, asked: Asked, on_read: OnProgress) -> Hint:
    """The border of the middle frame of every clip whose file is still the one of its row."""
    if not asked.border:
        return Hint.unknown(BORDER, len(clips), "left out by --no-border")
    videos = asked.videos or str(getattr(clips.source, "attributes", {}).get("clips", ""))
    if not videos:
        reason = "the store does not say where its clips are: pass --videos"
        return Hint.unknown(BORDER, len(clips), reason)
    try:
        catalog = discover(videos)
    except (ConfigError, store.StoreError, OSError) as error:
        return Hint.unknown(BORDER, len(clips), f"the clips cannot be listed: {error}")
    at, paths = _files(clips.table, catalog)
    if not len(at):
        reason = f"none of the clips in {videos} is the file that its row was made from"
        return Hint.unknown(BORDER, len(clips), reason)
    read = 0

    def on_clip() -> None:
        nonlocal read
        read += 1
        on_read(read, len(at))

    sizes = clips.table["size_bytes"].to_numpy()[at].tolist()
    strips, known = read_borders(list(map(ClipSource, paths, sizes)), on_clip)
    values = np.zeros((len(clips), strips.shape[1]), np.uint8)
    values[at] = strips
    readable = np.zeros(len(clips), bool)
    readable[at] = known
    lost = len(clips) - int(readable.sum())
    reason = f"{lost} of {len(clips)} clips cannot be read in {videos}" if lost else ""
    return Hint(name=BORDER, values=values, known=readable, reason=reason)


def _files(table: pd.DataFrame, catalog: pd.DataFrame) -> tuple[np.ndarray, list[str]]:
    """(positions of the clips whose file is there and unchanged, those files)."""
    places = pd.Index(catalog["video_id"]).get_indexer(pd.Index(table["video_id"].astype(str)))
    positions: list[int] = []
    paths: list[str] = []
    for position, place in enumerate(places.tolist()):
        if place >= 0 and unchanged(catalog.iloc[place], table.iloc[position]):
            positions.append(position)
            paths.append(str(catalog["path"].iloc[place]))
    return np.array(positions, dtype=np.int64), paths
