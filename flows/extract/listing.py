"""The clips of a run: listed once, and as each of its stores wants them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from flows.extract.long import Listed, split_long, splits_long
from flows.extract.request import DEMO_CLIPS, clips_of, parts, sampling_of, share_of, with_signature
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


def list_clips(settings: FeaturesSettings) -> pd.DataFrame:
    """The catalog of all clips; files are whole."""
    if not settings.videos and not Path(DEMO_CLIPS).is_dir():
        from pipeline.features.demo import write_demo_clips

        write_demo_clips(Path(DEMO_CLIPS))
    return discover(with_signature(clips_of(settings)), ucf_splits=settings.ucf_splits or None)


def listings_for(
    settings: Sequence[FeaturesSettings], catalog: pd.DataFrame, stores: Sequence[Any | None]
) -> list[Listed]:
    """The clips as each store of a run wants them.

    catalog: as `list_clips` gives it. stores: open, or their writers; None for one that is not there.
    """
    fresh: Listed | None = None
    found = []
    for its, existing in zip(settings, stores, strict=True):
        if existing is None:
            fresh = fresh or _listing_for(its, catalog, None, None)
            found.append(fresh)
        else:
            table = existing.table if isinstance(existing, Writer) else existing.table()
            found.append(_listing_for(its, catalog, existing, table))
    return found


def _listing_for(
    settings: FeaturesSettings,
    catalog: pd.DataFrame,
    existing: Any | None,
    table: pd.DataFrame | None,
) -> Listed:
    # Before the share is taken: what all shards hold is what one store without shards would.
    wanted = narrow(
        catalog, classes=parts(settings.classes), limit=settings.limit, per_class=settings.per_class
    )
    if (share := share_of(settings, existing)) is not None:
        # Clips of other shards are not this store's: neither new to it nor gone.
        mine = share.members(catalog)
        catalog, wanted = catalog[mine].reset_index(drop=True), wanted[mine]
    if not splits_long(settings, existing):
        return catalog, wanted
    made_so = existing is not None and existing.attributes.get("long") == "split"
    sampling = sampling_of(settings)
    table = table if made_so else None
    retry = parts(settings.retry)
    return split_long((catalog, wanted), table, sampling, timeout_s=settings.timeout, retry=retry)
