"""The accepted run of a folder of runs: `RUNS/accepted` points to it; others are held against it."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import ConfigError
from pipeline.heads.clips import Clips
from pipeline.heads.saved import load_run

POINTER = "accepted"


def read(runs: Path) -> Path | None:
    """The folder of the accepted run, or None where there is none yet.

    Raises `ConfigError` where the pointer leads nowhere.
    """
    pointer = runs / POINTER
    if not os.path.lexists(pointer):
        return None
    if not (pointer / "config.json").is_file():
        raise ConfigError(
            f"{pointer} leads to no run: remove it to begin anew, or point it to a finished run"
        )
    return pointer.resolve()


def promote(runs: Path, folder: Path) -> None:
    """Point `RUNS/accepted` to this run, at once: whoever looks sees the old one or the new one."""
    temporary = runs / f".{POINTER}-{uuid.uuid4().hex}"
    temporary.symlink_to(os.path.relpath(folder, runs))
    temporary.replace(runs / POINTER)


def state_of(clips: Clips) -> str:
    """A hash of which clips can be used and what their features, labels and splits are."""
    hasher = hashlib.sha256(clips.fingerprint.encode())
    table = clips.table[["video_id", "label", "split", "group"]].astype(str)
    for values, digest in zip(table.itertuples(index=False), clips.digests, strict=True):
        hasher.update("\0".join([*values, str(digest)]).encode() + b"\n")
    return hasher.hexdigest()


def keep_test_clips(clips: Clips, accepted: Path | None) -> tuple[Clips, str]:
    """The clips with the accepted run's test clips marked as such, and the way to split them.

    Whoever shares a group with a test clip is tested too, so that no source video is on both
    sides. Without an accepted run, or where the data brings its own split, nothing changes ("").
    """
    if accepted is None:
        return clips, ""
    record = _config(accepted)["split"]
    if record["how"] == "given":
        return clips, ""
    table = clips.table.copy()
    ids = table["video_id"].astype(str)
    test = ids.isin([str(video) for video in record["test"]["video_ids"]]).to_numpy()
    if not test.any():
        raise ConfigError(
            f"none of the test clips of {accepted} is in the store: remove {accepted.parent}/"
            f"{POINTER} to begin anew"
        )
    if record["how"] != "stratified":
        groups = table["group"].astype(str)
        tested = set(groups[test]) - {""}
        test = test | groups.isin(tested).to_numpy()
    table["split"] = np.where(test, "test", "train")
    return replace(clips, table=table), "given"


def test_clips(run: Path, clips: Clips) -> np.ndarray:
    """Positions of a run's test clips that can still be used."""
    wanted = {str(video) for video in _config(run)["split"]["test"]["video_ids"]}
    return np.flatnonzero(clips.table["video_id"].astype(str).isin(wanted).to_numpy())


def top1(run: Path, clips: Clips, positions: np.ndarray) -> float:
    """The share of these clips that a run names rightly. A class that it does not know is wrong.

    Raises `ConfigError` (`SpecMismatch`) where its head reads other features than these.
    """
    loaded = load_run(run)
    loaded.require_same_spec(clips.source)
    right = 0
    for features, mask, at in clips.batches(positions, loaded.batch):
        said = loaded.predict(features, mask).argmax(axis=1)
        truth = clips.table["label"].astype(str).to_numpy()[at]
        right += int((np.array(loaded.classes)[said] == truth).sum())
    return right / max(1, len(positions))


def _config(run: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((run / "config.json").read_text(encoding="utf-8"))
    return config
