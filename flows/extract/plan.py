"""The plan of a run: the catalog compared with the store's table. Pure; a file is opened only to hash
a clip whose time changed while its size did not.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from pipeline.errors import ConfigError, did_you_mean
from pipeline.features.catalog.table import ABSENT, UNKNOWN
from pipeline.features.reasons import FAILURES, WARNINGS
from pipeline.spans import BOUNDS
from store import FAILED, GONE, PENDING, READY

_FOLLOWED = ("label", "split", "group", "file")
_MADE_FROM = ("size_bytes", "mtime_ns", *BOUNDS)
SameBytes = Callable[[str, str], bool | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Rows are numbers in the store; `positions` are numbers in the catalog.

    new: positions of clips that the store does not know, those of one file together ·
    make: known rows to extract · gone: rows whose clip has left · returned: gone rows whose bytes are
    back · known: rows of all other catalog clips, at `known_positions` · stale: of those, rows whose
    bytes or bounds have changed and that this run does not make · unknown: of those, rows whose clip
    could not be looked up: they stay as they are. A clip that the catalog names and that is not there has
    left, if its row is ready; the row of one that was never made is made, and fails.
    """

    new: np.ndarray
    make: np.ndarray
    gone: np.ndarray
    returned: np.ndarray
    known: np.ndarray
    known_positions: np.ndarray
    stale: np.ndarray
    unknown: np.ndarray
    why: dict[str, int] = field(default_factory=dict)

    def __repr__(self) -> str:
        return (
            f"Plan({len(self.new)} new, {len(self.make)} to make again, {len(self.gone)} gone, "
            f"{len(self.returned)} returned, {len(self.known)} known)"
        )

    def __len__(self) -> int:
        return len(self.new) + len(self.make)


def make_plan(
    catalog: pd.DataFrame,
    table: pd.DataFrame,
    *,
    wanted: np.ndarray | None = None,
    retry: Collection[str] = (),
    same_bytes: SameBytes = lambda path, sha256: False,
) -> Plan:
    """Compare a catalog with a store's table.

    catalog: every clip that exists (`pipeline.features.catalog`); `wanted` is a bool per clip, where
    a run was narrowed: clips outside it are neither made nor marked gone.
    retry: failure reasons to try again, or `all` failures; a warning's reason extracts the ready
    clips that carry it again. Reasons that may be temporary are always retried.
    same_bytes: (path, stored SHA-256) → whether the file still has it, None where it cannot be read;
    asked only where the size is the same (or lost to damage) and the time is not.
    """
    wanted = np.ones(len(catalog), bool) if wanted is None else wanted
    row_at = pd.Index(table["video_id"]).get_indexer(pd.Index(catalog["video_id"]))
    known_positions = np.flatnonzero(row_at >= 0)
    known = row_at[known_positions]
    new = _by_file(catalog, np.flatnonzero((row_at < 0) & wanted))

    present = np.isin(np.arange(len(table)), known)
    status = table["status"].to_numpy()
    reason = table["reason"].to_numpy().astype(str)
    was = status[known]
    unknown, absent = _unseen(catalog, known_positions)
    changed, unread = _changed(catalog, table, known, known_positions, same_bytes)
    unknown |= unread
    # Features are replaced only for other bytes, and none have been seen.
    keeps = (was == READY) | ((was == GONE) & _has_features(table, known))
    kept = (unknown | absent) & keeps
    left = absent & (was == READY) & wanted[known_positions]
    gone = np.union1d(np.flatnonzero(~present & (status != GONE)), known[left])
    changed &= ~unknown & ~kept
    returned = (was == GONE) & ~changed & ~kept & _has_features(table, known)
    again = (was == FAILED) & tried_again(reason[known], retry)
    again |= (was == READY) & np.isin(reason[known], [r for r in retry if r in WARNINGS])
    pending = (was == PENDING) | ((was == GONE) & ~returned)
    make = (changed | again | pending) & ~kept & wanted[known_positions]
    return Plan(
        new=new,
        make=np.sort(known[make]),
        gone=gone,
        returned=known[returned],
        known=known,
        known_positions=known_positions,
        stale=known[changed & ~make],
        unknown=known[unknown],
        why={
            "new": len(new),
            "changed": int((changed & make & ~pending).sum()),
            "tried again": int((again & make & ~changed).sum()),
            "pending": int((pending & make).sum()),
        },
    )


def tried_again(reasons: np.ndarray, retry: Collection[str]) -> np.ndarray:
    """Which of these reasons of failures a run tries again: bool each. retry: as for `make_plan`."""
    heal = [code for code, known_reason in FAILURES.items() if known_reason.retried]
    return np.asarray(np.isin(reasons, [*heal, *retry]) | ("all" in retry), bool)


def follow_catalog(
    catalog: pd.DataFrame, table: pd.DataFrame, plan: Plan
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Column → (rows, values) where label, split, group, size or time differ from the catalog.

    Stale rows, and those whose clip is unknown now, keep the size and time that their features were
    made from, so that the next run that wants them still sees the change.
    """
    updates = {}
    _, absent = _unseen(catalog, plan.known_positions)
    fresh = ~np.isin(plan.known, [*plan.stale, *plan.unknown]) & ~absent
    for name in (*_FOLLOWED, *_MADE_FROM):
        now, _, differs = _compared(catalog, table, name, plan.known, plan.known_positions)
        if name not in _FOLLOWED:
            differs &= fresh
        if differs.any():
            updates[name] = (plan.known[differs], now[differs])
    return updates


def _compared(
    catalog: pd.DataFrame, table: pd.DataFrame, name: str, rows: np.ndarray, positions: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A column in the catalog and in the table, and where they differ (bool); NaN equals NaN."""
    now, before = catalog[name].to_numpy()[positions], table[name].to_numpy()[rows]
    differs = np.asarray(now != before, bool)
    if now.dtype.kind == "f":
        differs &= ~(np.isnan(now) & np.isnan(before))
    return now, before, differs


def _by_file(catalog: pd.DataFrame, positions: np.ndarray) -> np.ndarray:
    """The positions with those of one file together, where its first stands, by where they begin."""
    clips = catalog.iloc[positions]
    file, _ = pd.factorize(clips["path"])
    begins = clips["start_s"].fillna(-1.0).to_numpy()
    return positions[np.lexsort((clips["start_frame"].to_numpy(), begins, file))]


def check_retry(retry: Collection[str]) -> None:
    """Raise `ConfigError` on a reason that no clip can have, with the nearest that one can."""
    known = ["all", *FAILURES, *WARNINGS]
    for reason in retry:
        if reason not in known:
            raise ConfigError(
                f"--retry {reason}: no clip fails with that reason: {did_you_mean(reason, known)}"
            )


def _unseen(catalog: pd.DataFrame, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which clips could not be looked up, and which certainly do not exist: bool each."""
    listed = catalog[["size_bytes", "mtime_ns"]].to_numpy()[positions]
    return (listed == UNKNOWN).all(axis=1), (listed == ABSENT).all(axis=1)


def _has_features(table: pd.DataFrame, rows: np.ndarray) -> np.ndarray:
    """Whether these rows were ready once, and still hold what was made then."""
    failed = np.isin(table["reason"].to_numpy().astype(str)[rows], list(FAILURES))
    return np.asarray(~failed & (table["frames_decoded"].to_numpy()[rows] > 0), bool)


def _changed(
    catalog: pd.DataFrame,
    table: pd.DataFrame,
    known: np.ndarray,
    positions: np.ndarray,
    same_bytes: SameBytes,
) -> tuple[np.ndarray, np.ndarray]:
    """Which clips have other bytes or bounds, and which cannot be read to compare: bool each."""
    moved = np.zeros(len(known), bool)
    for name in BOUNDS:
        moved |= _compared(catalog, table, name, known, positions)[2]
    size = catalog["size_bytes"].to_numpy()[positions]
    time = catalog["mtime_ns"].to_numpy()[positions]
    stored_size = table["size_bytes"].to_numpy()[known]
    same_size = size == stored_size
    same_time = time == table["mtime_ns"].to_numpy()[known]
    changed = ~same_size | ~same_time
    may_be_same = same_size | (stored_size == -1)
    # A copied or touched file is a new time on the same bytes: hashing it is cheaper than the CNN.
    digests = table["sha256"].to_numpy().astype(str)[known]
    paths = catalog["path"].to_numpy()
    unread = np.zeros(len(known), bool)
    for i in np.flatnonzero(changed & may_be_same & (digests != "") & ~moved):
        same = same_bytes(paths[positions[i]], digests[i])
        changed[i], unread[i] = not same, same is None
    return np.asarray(changed | moved, bool), unread
