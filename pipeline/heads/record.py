"""Which clips a run was made of: `clips.csv`, a line per clip with the part that it took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.heads.clips import Clips
from pipeline.heads.holdout import kept_out
from pipeline.heads.saved import read_config
from pipeline.heads.source import Rows
from pipeline.heads.splits import Split
from pipeline.plain import read_table, write_table

CLIPS = "clips.csv"
COLUMNS = ("row", "video_id", "label", "group", "part", "fold", "sha256", "digest")


def write_clips(out: Path, clips: Clips, splits: Sequence[Split], tested: Rows) -> None:
    """Write `clips.csv`: every usable clip, with the part it takes in the run's own head.

    part: train, validation, test, or empty for a clip that takes none. Of several folds the head
    is trained on all, `fold` is the one that tests the clip, and the test is the named test set's
    (`tested`, row numbers).
    """
    part = np.full(len(clips), "", dtype=object)
    fold = np.full(len(clips), "", dtype=object)
    if len(splits) > 1:
        for split in splits:
            at = clips.positions(split.test)
            part[at], fold[at] = "train", str(split.fold)
        part[clips.positions(tested)] = "test"
    else:
        for name in ("train", "validation", "test"):
            part[clips.positions(getattr(splits[0], name))] = name
    table = clips.table.assign(row=clips.rows, part=part, fold=fold)
    table = table.reindex(columns=list(COLUMNS), fill_value="")
    write_table(table, out / CLIPS)


def read_clips(run: Path) -> pd.DataFrame:
    """A run's `clips.csv` with text columns as text; empty for a run made before there was one."""
    if not (run / CLIPS).exists():
        return pd.DataFrame(columns=list(COLUMNS))
    texts = dict.fromkeys(("video_id", "label", "group", "part", "fold", "sha256"), str)
    return read_table(run / CLIPS, dtype=texts)


def trained_clips(run: Path, table: pd.DataFrame) -> pd.DataFrame:
    """What the head of a run has seen: video_id, group, sha256 and digest of every such clip.

    Its training and validation clips, or, of several folds, all of them. For a run made before
    `clips.csv`, groups and hashes are those that `table` (a store's) has under the same ids.
    """
    found = read_clips(run)
    if len(found):
        return found[found["part"].isin(["train", "validation"])]
    config = read_config(run)
    parts = ("train", "validation", "test") if config["folds"] else ("train", "validation")
    records = [(config["folds"] or [config["split"]])[0][part] for part in parts]
    seen = pd.DataFrame(
        {
            "video_id": [str(v) for record in records for v in record["video_ids"]],
            "digest": [int(d) for record in records for d in record["digests"]],
        }
    )
    known = table.reindex(columns=["video_id", "group", "sha256"], fill_value="")
    return seen.merge(known, on="video_id", how="left").fillna({"group": "", "sha256": ""})


def left_out(clips: Clips, used: Rows) -> dict[str, int]:
    """Why clips take no part in a run whose splits use the rows `used`: reason → number."""
    idle = ~np.isin(clips.rows, used)
    out = kept_out(clips.holdouts, clips.table)
    counts: Mapping[str, Any] = {
        "kept_out": int((idle & out).sum()),
        "not_in_split": int((idle & ~out).sum()),
    }
    return dict(clips.left_out) | {name: count for name, count in counts.items() if count}
