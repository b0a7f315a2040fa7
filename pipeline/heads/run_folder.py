"""What a run leaves in its folder."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.heads.clips import Clips
from pipeline.heads.fitting import EpochReport
from pipeline.heads.measures import Labels, Probabilities, label_ranks, predicted_classes
from pipeline.heads.source import Rows
from pipeline.heads.splits import Split
from pipeline.plain import read_table, write_rows
from pipeline.plain import write_json as write_json

FORMAT = "pixels-once/run"
FORMAT_VERSION = 1
CHECKPOINT = "checkpoint"
DONE = "metrics.json"
"""A folder with it holds the figures of a trained head; pictures may come after it."""


def write_history(path: Path, history: Sequence[EpochReport]) -> None:
    """One line per epoch."""
    names = [field.name for field in dataclasses.fields(EpochReport)]
    write_rows(path, [names, *(dataclasses.astuple(report) for report in history)])


def predictions_table(
    clips: Clips, parts: Mapping[str, tuple[Rows, Probabilities]]
) -> pd.DataFrame:
    """One line per predicted clip: who it is, what was said, and every class's probability.

    `parts` maps `test`, `validation`, … to (positions (n,), probabilities (n, classes)).
    """
    tables = []
    for part, (positions, probabilities) in parts.items():
        rows = clips.table.iloc[positions]
        labels: Labels = clips.labels[positions]
        predicted = predicted_classes(probabilities) if len(positions) else labels
        table = pd.DataFrame(
            {
                "row": clips.rows[positions],
                "video_id": rows["video_id"].to_numpy(),
                "group": rows["group"].to_numpy(),
                "part": part,
                "label": rows["label"].to_numpy(),
                "predicted": [clips.classes[i] if i >= 0 else "" for i in predicted],
                "confidence": probabilities.max(axis=1) if len(positions) else [],
                "rank": label_ranks(probabilities, labels) + 1,
            }
        )
        for i, name in enumerate(clips.classes):
            table[f"p:{name}"] = probabilities[:, i]
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def read_predictions(path: Path, *, probabilities: bool = True) -> pd.DataFrame:
    """What `predictions_table` held: a class named `NA` stays a name, not a missing value."""
    names = ("video_id", "group", "part", "label", "predicted")
    wanted = None if probabilities else lambda column: not column.startswith("p:")
    return read_table(path, usecols=wanted, dtype=dict.fromkeys(names, str))


def recorded_splits(out: Path) -> list[Split]:
    """The splits that a run's `config.json` records; empty where there is none."""
    path = out / "config.json"
    if not path.exists():
        return []
    config = json.loads(path.read_text(encoding="utf-8"))
    splits = []
    for record in config["folds"] or [config["split"]]:
        parts = {name: record[name]["rows"] for name in ("train", "validation", "test")}
        splits.append(Split.from_dict(record | parts))
    return splits


def split_record(clips: Clips, split: Split) -> dict[str, Any]:
    """The split with rows, digests and video ids of each part, as plain JSON values."""
    record: dict[str, Any] = {
        "how": split.how,
        "seed": split.seed,
        "fold": split.fold,
        "folds": split.folds,
        "test_set": split.test_set,
    }
    for name in ("train", "validation", "test"):
        at = clips.positions(getattr(split, name))
        record[name] = {
            "rows": clips.rows[at].tolist(),
            "digests": clips.digests[at].tolist(),
            "video_ids": clips.table["video_id"].iloc[at].tolist(),
        }
    return record
