"""What a run leaves in its folder, and who may write there."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.errors import ConfigError
from pipeline.heads.clips import Clips
from pipeline.heads.fitting import EpochReport
from pipeline.heads.measures import Labels, Probabilities, label_ranks
from pipeline.heads.source import Rows
from pipeline.heads.splits import Split

FORMAT = "pixels-once/run"
FORMAT_VERSION = 1
CHECKPOINT = "checkpoint"
DONE = "metrics.json"
"""Written last: a folder with it holds a finished run."""


def prepare_folder(out: Path, *, overwrite: bool, resume: bool) -> None:
    """Make an empty folder for a run, or leave one that is to be resumed.

    A folder that exists is refused (`ConfigError`) unless `overwrite` or `resume`; overwriting
    deletes only what is recognisably a run.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        out.mkdir(parents=True, exist_ok=True)
        return
    # A training that was stopped has figures of its best model so far, and a state to go on from.
    unfinished = (out / CHECKPOINT).is_dir() or (
        (out / "config.json").exists() and not (out / DONE).exists()
    )
    if resume and unfinished:
        (out / DONE).unlink(missing_ok=True)
        return
    if not overwrite:
        if unfinished:
            raise ConfigError(
                f"the run {out} holds an unfinished training: --resume goes on with it, "
                "--overwrite replaces it"
            )
        raise ConfigError(f"the run {out} exists: choose another name or pass --overwrite")
    if not ((out / "config.json").exists() or unfinished):
        raise ConfigError(f"{out} is not a run, so it is not overwritten: choose another name")
    shutil.rmtree(out)
    out.mkdir(parents=True)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write JSON for people: indented, and whole or not at all."""
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(json.dumps(values, indent=1, allow_nan=True) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def write_history(path: Path, history: Sequence[EpochReport]) -> None:
    """One line per epoch."""
    names = [f.name for f in dataclasses.fields(EpochReport)]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(dataclasses.asdict(report) for report in history)


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
        said = probabilities.argmax(axis=1) if len(positions) else labels
        table = pd.DataFrame(
            {
                "row": clips.rows[positions],
                "video_id": rows["video_id"].to_numpy(),
                "group": rows["group"].to_numpy(),
                "part": part,
                "label": rows["label"].to_numpy(),
                "predicted": [clips.classes[i] for i in said],
                "confidence": probabilities.max(axis=1) if len(positions) else [],
                "rank": label_ranks(probabilities, labels) + 1,
            }
        )
        for i, name in enumerate(clips.classes):
            table[f"p:{name}"] = probabilities[:, i]
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def read_predictions(path: Path) -> pd.DataFrame:
    """What `predictions_table` held: a class named `NA` stays a name, not a missing value."""
    names = ("video_id", "group", "part", "label", "predicted")
    return pd.read_csv(path, dtype=dict.fromkeys(names, str), keep_default_na=False)


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
    }
    for name in ("train", "validation", "test"):
        at = clips.positions(getattr(split, name))
        record[name] = {
            "rows": clips.rows[at].tolist(),
            "digests": clips.digests[at].tolist(),
            "video_ids": clips.table["video_id"].iloc[at].tolist(),
        }
    return record
