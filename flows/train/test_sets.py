"""Test sets on their way into a store, and which one a refresh judges by."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import store
from flows.train import promotion
from flows.train.flow import ACCEPTED
from pipeline.errors import ConfigError
from pipeline.heads.clips import Clips
from pipeline.heads.freezing import cut_holdout, holdout_of_ids
from pipeline.heads.holdout import Holdout

FIRST = "refresh"
"""What the set is called that the first refresh makes."""


def write_test_set(url: str, holdout: Holdout, *, by: str, lease: bool = True) -> None:
    """Write a test set into a store, for good. Raises `store.StoreMismatch` for a name in use."""
    made: dict[str, Any] = {"made_at": datetime.now(UTC).isoformat(timespec="seconds"), "by": by}
    with store.Writer.acquire(url, owner=by, lease=lease) as writer:
        store.add_test_set(writer, holdout.name, holdout.to_dict() | made)


def require_name(name: str) -> None:
    """Raise `ConfigError` for a name that a test set cannot have."""
    if not name.strip() or name != name.strip() or not name.isprintable():
        raise ConfigError(f"name is {name!r}: give a test set a name without blanks around it")


def refreshed_set(url: str, clips: Clips, wanted: str, before: Path | None, **cut: Any) -> Holdout:
    """The test set that a refresh judges by: the store's, or the one that is to be made now.

    wanted: its name, or empty for the only one there is. Where there is none: the test clips of the
    accepted run (`before`), which it has not been trained on; else a new cut (`cut_holdout`).
    """
    known = {holdout.name: holdout for holdout in clips.holdouts}
    name = wanted or (FIRST if FIRST in known or not known else "")
    if not name and len(known) > 1:
        raise ConfigError(
            f"{url} has the test sets {', '.join(known)}: say by which a refresh judges (test_set in "
            "[refresh])"
        )
    name = name or next(iter(known))
    if name in known:
        return known[name]
    require_name(name)
    tested = promotion.tested_ids(before) if before is not None else []
    if before is None or not tested:
        return cut_holdout(clips, name, **cut)
    if not clips.table["video_id"].astype(str).isin(tested).any():
        raise ConfigError(
            f"none of the test clips of {before} is in the store: remove {ACCEPTED} from "
            "the folder of runs to begin anew"
        )
    at = np.flatnonzero(clips.table["video_id"].astype(str).isin(tested).to_numpy())
    # Where its own training has their groups, by the user's wish, only the clips can be kept apart.
    apart = bool(promotion.not_seen(before, clips, at, groups=True).all())
    return holdout_of_ids(clips, name, tested, whole_groups=apart)


def with_test_set(url: str, clips: Clips, holdout: Holdout, *, lease: bool) -> Clips:
    """The clips with this test set in their store, written there if it is not yet."""
    if any(holdout.name == known.name for known in clips.holdouts):
        return clips
    write_test_set(url, holdout, by="refresh", lease=lease)
    return replace(clips, holdouts=(*clips.holdouts, holdout))
