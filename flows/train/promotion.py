"""What a refresh judges by: a test set of the store, and the accepted run (`RUNS/accepted`)."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import store
from flows.train.shared import ACCEPTED
from pipeline.errors import ConfigError, SpecMismatch
from pipeline.heads.clips import Clips
from pipeline.heads.config import TrainConfig
from pipeline.heads.freezing import cut_holdout, holdout_of_ids
from pipeline.heads.holdout import Holdout
from pipeline.heads.leakage import unseen
from pipeline.heads.measures import predicted_classes
from pipeline.heads.promotion import Hits
from pipeline.heads.run_folder import read_config, trained_clips
from pipeline.heads.saved import load_run
from pipeline.heads.source import Rows

LOCK = ".accepted.lock"


def read(runs: Path) -> Path | None:
    """The accepted run's folder, or None. Raises `ConfigError` if the pointer dangles or is no link."""
    pointer = runs / ACCEPTED
    if not os.path.lexists(pointer):
        return None
    if not pointer.is_symlink():
        raise ConfigError(
            f"{pointer} is a folder, not a link to the accepted run: rename it to a name of its own"
        )
    if not (pointer / "config.json").is_file():
        raise ConfigError(
            f"{pointer} leads to no run: remove it to begin anew, or point it to a finished run"
        )
    return pointer.resolve()


def promote(runs: Path, folder: Path) -> None:
    """Point `RUNS/accepted` to this run, atomically. Raises `ConfigError` if that name is not a link."""
    if os.path.lexists(runs / ACCEPTED) and not (runs / ACCEPTED).is_symlink():
        read(runs)  # raises it
    temporary = runs / f".{ACCEPTED}-{uuid.uuid4().hex}"
    temporary.symlink_to(os.path.relpath(folder, runs))
    temporary.replace(runs / ACCEPTED)


@contextlib.contextmanager
def locked(runs: Path) -> Iterator[None]:
    """Hold this folder of runs among all refreshes on this host; the lock ends with its process."""
    runs.mkdir(parents=True, exist_ok=True)
    with (runs / LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def state_of(
    clips: Clips, trainings: Sequence[TrainConfig], *, test_set: str = "", threshold: float = 0.0
) -> str:
    """A hash of which clips can be used, their features, labels and splits, and of every setting
    that heads are trained and judged by.
    """
    choices = [
        *(config.to_dict() for config in trainings),
        {"test_set": test_set, "threshold": threshold},
    ]
    hasher = hashlib.sha256(clips.fingerprint.encode())
    hasher.update(json.dumps(choices, sort_keys=True).encode() + b"\n")
    table = clips.table[["video_id", "label", "split", "group"]].astype(str)
    for values, digest in zip(table.itertuples(index=False), clips.digests, strict=True):
        hasher.update("\0".join([*values, str(digest)]).encode() + b"\n")
    return hasher.hexdigest()


def require_same_features(run: Path, clips: Clips) -> None:
    """Raise `SpecMismatch` if a run's head reads other features than these."""
    fingerprint = str(read_config(run)["fingerprint"])
    if fingerprint != clips.fingerprint:
        raise SpecMismatch(
            f"the accepted run {run.name} reads spec {fingerprint[:12]} and the store has "
            f"{clips.fingerprint[:12]}: use RUNS of its own for this store, or remove "
            f"{run.parent / ACCEPTED} to begin anew"
        )


def not_seen(run: Path, clips: Clips, positions: Rows, *, groups: bool) -> np.ndarray:
    """Which of the clips at `positions` a run's head was not trained on, (n,) bool."""
    return unseen(clips, positions, trained_clips(run, clips.table), groups=groups)


def hits(run: Path, clips: Clips, positions: Rows) -> Hits:
    """Which of these clips a run classifies correctly, (n,) bool. A class that it does not know is
    wrong, and so is a prediction that is not a number.

    Raises `SpecMismatch` where its head reads other features than these, `ConfigError` where the
    features of a clip are damaged.
    """
    loaded = load_run(run)
    loaded.require_same_spec(clips.source)
    clips = clips.as_stored()
    truth = clips.table["label"].astype(str).to_numpy()
    right, seen = np.zeros(len(truth), bool), np.zeros(len(truth), bool)
    for features, mask, at in clips.batches(positions, loaded.batch):
        # −1, where a probability is not a number, is the class without a name: never right.
        named = np.array([*loaded.classes, ""])[predicted_classes(loaded.predict(features, mask))]
        right[at], seen[at] = named == truth[at], True
    at = np.asarray(positions)
    if not seen[at].all():
        raise ConfigError(
            f"the features of {clips.table['video_id'].iloc[at[~seen[at]][0]]} are damaged: run "
            "`verify --repair`, then `features`"
        )
    return right[at]


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
    config: dict[str, Any] = {"folds": True} if before is None else read_config(before)
    # With folds every clip was trained on, too.
    tested = [] if config["folds"] else list(map(str, config["split"]["test"]["video_ids"]))
    if before is None or not tested:
        return cut_holdout(clips, name, **cut)
    at = np.flatnonzero(clips.table["video_id"].astype(str).isin(tested).to_numpy())
    if not len(at):
        raise ConfigError(
            f"none of the test clips of {before} is in the store: remove {ACCEPTED} from "
            "the folder of runs to begin anew"
        )
    # Where its own training has their groups, by the user's wish, only the clips can be kept apart.
    apart = bool(not_seen(before, clips, at, groups=True).all())
    return holdout_of_ids(clips, name, tested, whole_groups=apart)


def with_test_set(url: str, clips: Clips, holdout: Holdout, *, lease: bool) -> Clips:
    """The clips with this test set in their store, written there if it is not yet."""
    if any(holdout.name == known.name for known in clips.holdouts):
        return clips
    write_test_set(url, holdout, by="refresh", lease=lease)
    return replace(clips, holdouts=(*clips.holdouts, holdout))
