"""Settings of removing features for good."""

from __future__ import annotations

from dataclasses import dataclass

from flows.settings.field import setting


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetSettings:
    """Removes clips' features from a store for good. The rows stay, so no other row moves."""

    store: str = setting("features.zarr", "the store", metavar="PATH")
    clips: str = setting(
        "",
        "ids to forget, separated by commas; * and ? match any part, e.g. 'fight/v_Fight_g01*'",
        metavar="ID,…",
    )
    gone: bool = setting(False, "forget every row whose clip has left the catalog")
    lease: bool = setting(True, "hold the store's lease while writing")
    dry_run: bool = setting(False, "say which rows would be forgotten; do nothing")
