"""`pixels-once forget`: removes rows' features for good."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flows.cli.terminal import print_json
from flows.settings.resolve import setting
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

EXAMPLES = """
pixels-once forget --store clips.zarr --gone
pixels-once forget --store clips.zarr --clips 'fight/v_Fight_g01*' --dry-run
"""


_PATTERN = re.compile(r"(?:#(?:t|frames)=[\d.*?]+,[\d.*?]+(?=\s*(?:,|$))|[^,])+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Removes clips' features from a store permanently. The rows stay, so no other row moves."""

    store: str = setting("features.zarr", "the store", metavar="PATH")
    clips: str = setting(
        "",
        "ids to forget, separated by commas; * and ? match any part, e.g. 'fight/v_Fight_g01*'",
        metavar="ID,…",
    )
    gone: bool = setting(False, "forget every row that is gone: its clip is no longer listed")
    lease: bool = setting(True, "hold the store's lease while writing")
    dry_run: bool = setting(False, "report which rows would be forgotten; do nothing")


def run(settings: Settings, *, json: bool) -> int:
    import store

    if not settings.clips and not settings.gone:
        raise ConfigError("nothing was named: pass --clips ID,… or --gone")
    table = store.open(settings.store).table()
    rows = chosen(table, settings)
    if not settings.dry_run:
        with store.Writer.acquire(settings.store, owner="forget", lease=settings.lease) as writer:
            rows = chosen(writer.table, settings)  # as they are now that nobody else writes
            writer.forget(rows)
            table = writer.table
    status = table["status"].loc[rows]
    pending = int((status != store.GONE).sum())
    if json:
        forgotten = 0 if settings.dry_run else len(rows)
        print_json(store=settings.store, forgotten=forgotten, chosen=len(rows), pending=pending)
        return 0
    would = "would be" if settings.dry_run else "are"
    print(f"{settings.store}: the features of {len(rows)} rows {would} removed")
    if pending:
        print(
            f"{pending} of them {would} pending: the next run makes them anew as long as their "
            "clips are in its folder"
        )
    return 0


def chosen(table: pd.DataFrame, settings: Settings) -> np.ndarray:
    """Rows that the settings name. Raises `ConfigError` on a pattern that names none."""
    import store

    named = table["video_id"].isin(matching(table["video_id"], settings.clips, settings.store))
    if settings.gone:
        named |= table["status"] == store.GONE
    return table.index[named].to_numpy()


def matching(ids: Iterable[str], patterns: str, url: str) -> set[str]:
    """The ids that comma-separated patterns name; `ConfigError` on a pattern that names none.

    The comma in `match.mp4#t=12.5,17` separates nothing.
    """
    ids = [str(name) for name in ids]
    named: set[str] = set()
    for pattern in filter(None, (part.strip() for part in _PATTERN.findall(patterns))):
        matches = {name for name in ids if name == pattern or fnmatch.fnmatchcase(name, pattern)}
        if not matches:
            raise ConfigError(
                f"no clip of {url} is called {pattern!r}: "
                "the ids are in the column video_id of `store.open(…).table()`"
            )
        named |= matches
    return named
