"""Whether the store that a run was trained from still holds what the run saw."""

from __future__ import annotations

from typing import TYPE_CHECKING

import store

if TYPE_CHECKING:
    from pipeline.heads.saved import Run


def moved_on(run: Run) -> str:
    """One sentence where the run's store holds other features now; empty where it does not.

    A head needs no store: one that has been moved or cannot be reached is nothing to speak of.
    """
    url = str(run.config.get("store", {}).get("url", ""))
    if not url:
        return ""
    try:
        source = store.open(url)
        if source.fingerprint != run.fingerprint:
            return f"{url} holds another spec now than {run.folder} was trained on"
        changed = run.moved_on(source)
    except (store.StoreError, OSError):
        return ""
    if not changed:
        return ""
    return (
        f"{url} has moved on: {len(changed)} clips that {run.folder} was trained or tested on "
        f"({changed[0]} for one) have other features now; train again to follow it"
    )
