"""Whether the store that a run was trained from still holds what the run saw, and calls it the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import store
from pipeline.errors import ConfigError
from pipeline.heads.changes import ClipChanges
from pipeline.heads.identity import Identity

if TYPE_CHECKING:
    from pipeline.heads.saved import Run


def moved_on(run: Run) -> str:
    """One sentence where the run's store holds other features or labels now; empty where it does not.

    A head needs no store: one that has been moved or cannot be reached is nothing to speak of.
    """
    url = str(run.config.get("store", {}).get("url", ""))
    if not url:
        return ""
    try:
        source = store.open(url)
        if source.fingerprint != run.fingerprint:
            return f"{url} holds another spec now than {run.folder} was trained on"
        recorded = Identity.load(run.folder)
        # A run of an older version recorded features and no labels.
        changes = (
            ClipChanges(features=tuple(run.moved_on(source)))
            if recorded is None
            else recorded.changes(source)
        )
    except (store.StoreError, ConfigError, OSError):
        return ""
    if not (phrases := changes.phrases()):
        return ""
    return (
        f"{url} has moved on since {run.folder} was trained ({'; '.join(phrases)}): train again to "
        "follow it"
    )
