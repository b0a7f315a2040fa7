"""`pixels-once forget`: removes rows' features for good."""

from __future__ import annotations

import fnmatch
from typing import Any

import numpy as np
import pandas as pd

import store
from flows.cli.terminal import print_json
from flows.settings import ForgetSettings
from pipeline.errors import ConfigError


def run(settings: ForgetSettings, *, json: bool) -> int:
    """Zero the features of the chosen rows and say how many."""
    if not settings.clips and not settings.gone:
        raise ConfigError("nothing was named: pass --clips ID,… or --gone")
    rows = chosen(store.open(settings.store).table(), settings)
    if not settings.dry_run:
        with store.Writer.acquire(settings.store, owner="forget", lease=settings.lease) as writer:
            rows = chosen(writer.table, settings)  # as they are now that nobody else writes
            writer.forget(rows)
            status = writer.column("status")[rows]
    else:
        status = store.open(settings.store).table()["status"].loc[rows].to_numpy()
    pending = int((status != store.GONE).sum())
    if json:
        print_json(
            {
                "store": settings.store,
                "forgotten": 0 if settings.dry_run else len(rows),
                "chosen": len(rows),
                "pending": pending,
            }
        )
        return 0
    would = "would be" if settings.dry_run else "are"
    print(f"{settings.store}: the features of {len(rows)} rows {would} removed")
    if pending:
        print(
            f"{pending} of them {would} pending: the next run makes them anew as long as their "
            "clips are in its folder"
        )
    return 0


def chosen(table: pd.DataFrame, settings: ForgetSettings) -> np.ndarray:
    """Rows that the settings name. Raises `ConfigError` on a pattern that names none."""
    ids = table["video_id"].to_numpy().astype(str)
    found = matching(ids, settings)
    if settings.gone:
        found |= (table["status"] == store.GONE).to_numpy()
    return np.asarray(table.index.to_numpy()[found])


def matching(ids: np.ndarray, settings: Any) -> np.ndarray:
    """Which ids the patterns of `settings.clips` name, bool; `ConfigError` on one that names none."""
    found: np.ndarray = np.zeros(len(ids), bool)
    for pattern in filter(None, (part.strip() for part in settings.clips.split(","))):
        matches = (ids == pattern) | [fnmatch.fnmatchcase(name, pattern) for name in ids]
        if not matches.any():
            raise ConfigError(
                f"no clip of {settings.store} is called {pattern!r}: "
                "`pixels-once show` and the store's table have the ids"
            )
        found = np.logical_or(found, matches)
    return np.asarray(found)
