"""The clips of a run: listed once, and as each of its stores wants them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from flows.extract.long import Listed, split_long, splits_long
from flows.extract.request import DEMO_CLIPS, clips_of, parts, sampling_of, with_signature
from flows.settings.features import FeaturesSettings
from pipeline.features.catalog import discover, narrow
from store import Writer


def find_clips(
    settings: FeaturesSettings, existing: Any | None, table: pd.DataFrame | None = None
) -> Listed:
    """List the clips, and narrow them to the classes and numbers that are wanted.

    existing: the store, or its writer, if it is there; its table is read only where files are split.
    """
    return _listing_for(settings, list_clips(settings), existing, table)


def list_clips(settings: FeaturesSettings) -> Listed:
    """The clips, and which of them are wanted; files are whole."""
    if not settings.videos and not Path(DEMO_CLIPS).is_dir():
        from pipeline.features.demo import write_demo_clips

        write_demo_clips(Path(DEMO_CLIPS))
    catalog = discover(with_signature(clips_of(settings)), ucf_splits=settings.ucf_splits or None)
    wanted = narrow(
        catalog, classes=parts(settings.classes), limit=settings.limit, per_class=settings.per_class
    )
    return catalog, wanted


def listings_for(
    settings: Sequence[FeaturesSettings], listed: Listed, stores: Sequence[Any | None]
) -> list[Listed]:
    """The clips as each store of a run wants them.

    listed: as `list_clips` gives them. stores: open, or their writers; None for one that is not there.
    """
    fresh: Listed | None = None
    found = []
    for its, existing in zip(settings, stores, strict=True):
        if existing is None:
            fresh = fresh or _listing_for(its, listed, None, None)
            found.append(fresh)
        else:
            table = existing.table if isinstance(existing, Writer) else existing.table()
            found.append(_listing_for(its, listed, existing, table))
    return found


def _listing_for(
    settings: FeaturesSettings, listed: Listed, existing: Any | None, table: pd.DataFrame | None
) -> Listed:
    if not splits_long(settings, existing):
        return listed
    made_so = existing is not None and existing.attributes.get("long") == "split"
    sampling = sampling_of(settings)
    table = table if made_so else None
    retry = parts(settings.retry)
    return split_long(listed, table, sampling, timeout_s=settings.timeout, retry=retry)
