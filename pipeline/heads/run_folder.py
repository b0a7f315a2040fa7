"""The files that a run leaves in its folder, written and read back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.errors import ConfigError
from pipeline.heads.clips import Clips
from pipeline.heads.epochs import EpochReport
from pipeline.heads.measures import Labels, Probabilities, label_ranks, predicted_classes
from pipeline.heads.source import Rows, class_numbers
from pipeline.heads.spans import SPAN, fragments
from pipeline.heads.splits import PARTS, Split
from pipeline.plain import read_json, read_table, write_rows, write_table

FORMAT = "pixels-once/run"
FORMAT_VERSION = 1
NEEDED = ("classes", "fingerprint", "head", "shape", "spec", "split", "steps")
"""The keys without which a run's `config.json` cannot be used."""
CHECKPOINT = "checkpoint"
DONE = "metrics.json"
"""A folder with it holds the figures of a trained head; plots may be written after it."""
CLIPS = "clips.csv"
HOW = ("how", "seed", "fold", "folds", "test_set", "repeat")
"""How a split was chosen; older versions recorded neither `test_set` nor `repeat`."""
COLUMNS = ("row", "video_id", "label", "group", "part", "fold", "sha256", "digest", SPAN)


def read_config(folder: Path) -> dict[str, Any]:
    """A run's `config.json`; raises `ConfigError` if it is damaged, not a run's, or too new."""
    config = read_json(
        folder / "config.json",
        absent=f"{folder} is not a run, it has no config.json: name a folder that `train` made",
        damaged=f"{folder}/config.json is damaged: train again",
    )
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ConfigError(f"{folder}/config.json is not a run's: name a folder that `train` made")
    if config.get("format_version", 0) > FORMAT_VERSION:
        raise ConfigError(
            f"{folder} has run format {config['format_version']}, newer than {FORMAT_VERSION}: "
            "update pixels-once"
        )
    missing = [name for name in NEEDED if not config.get(name)]
    if missing:
        raise ConfigError(
            f"{folder}/config.json has no {', '.join(missing)}: restore the file or train again"
        )
    return config


def read_metrics(folder: Path) -> dict[str, Any]:
    """A run's `metrics.json`; raises `ConfigError` if it is missing or damaged."""
    metrics: dict[str, Any] = read_json(
        folder / DONE,
        absent=f"{folder} has no {DONE}: its training has not ended, resume it",
        damaged=f"{folder / DONE} is damaged: restore the file or train again",
    )
    return metrics


def save_model(model: Any, path: Path) -> None:
    """Save a head without its optimizer (three times the size), whole or not at all."""
    # Keras goes by the suffix.
    temporary = path.with_name(f".{path.name}").with_suffix(".keras")
    model.save(temporary, include_optimizer=False)
    temporary.replace(path)


def write_history(path: Path, history: Sequence[EpochReport]) -> None:
    """One line per epoch; with the stream that it is of where several are joined late."""
    names = [field.name for field in dataclasses.fields(EpochReport) if field.name != "refit"]
    if all(report.streams == 1 for report in history):
        names = [name for name in names if name not in ("stream", "streams")]
    write_rows(path, [names, *([getattr(each, name) for name in names] for each in history)])


def predictions_table(
    clips: Clips, parts: Mapping[str, tuple[Rows, Probabilities]]
) -> pd.DataFrame:
    """One line per predicted clip: its id and label, the prediction, and every class's probability.

    parts: `test`, `validation`, … → (positions (n,), probabilities (n, classes))
    """
    tables = []
    for part, (positions, probabilities) in parts.items():
        rows = clips.table.iloc[positions]
        labels: Labels = clips.labels[positions]
        predicted = predicted_classes(probabilities) if len(positions) else labels
        columns: dict[str, Any] = {
            "row": clips.rows[positions],
            "video_id": rows["video_id"].to_numpy(),
            "group": rows["group"].to_numpy(),
            "part": part,
            "label": rows["label"].to_numpy(),
            "predicted": [clips.classes[i] if i >= 0 else "" for i in predicted],
            "confidence": probabilities.max(axis=1) if len(positions) else [],
            "rank": label_ranks(probabilities, labels) + 1,
        }
        columns |= {f"p:{name}": probabilities[:, i] for i, name in enumerate(clips.classes)}
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def read_predictions(path: Path, *, probabilities: bool = True) -> pd.DataFrame:
    """What `predictions_table` held: a class named `NA` stays a name, not a missing value."""
    names = ("video_id", "group", "part", "label", "predicted")
    wanted = None if probabilities else lambda column: not column.startswith("p:")
    return read_table(path, usecols=wanted, dtype=dict.fromkeys(names, str))


def class_probabilities(
    predictions: pd.DataFrame, classes: Sequence[str]
) -> tuple[Probabilities, Labels]:
    """(probabilities (n, classes) float32, labels (n,) int64) of a table of predictions."""
    probabilities = predictions[[f"p:{name}" for name in classes]].to_numpy(dtype=np.float32)
    return probabilities, class_numbers(predictions, classes)


def split_record(clips: Clips, split: Split) -> dict[str, Any]:
    """The split with rows, digests and video ids of each part, as plain JSON values."""
    record: dict[str, Any] = {name: getattr(split, name) for name in HOW}
    for name in PARTS:
        at = clips.positions(getattr(split, name))
        record[name] = {
            "rows": clips.rows[at].tolist(),
            "digests": clips.digests[at].tolist(),
            "video_ids": clips.table["video_id"].iloc[at].tolist(),
        }
    return record


def split_records(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What `split_record` returned for each fold, or for the one split, from `config.json`."""
    return list(config["folds"] or [config["split"]])


def recorded_splits(config: Mapping[str, Any]) -> list[Split]:
    """The splits that a run's `config.json` records."""
    splits = []
    for record in split_records(config):
        values = {name: record[name] for name in HOW if name in record}
        values |= {name: np.asarray(record[name]["rows"], dtype=np.int64) for name in PARTS}
        splits.append(Split(**values))
    return splits


def write_clips(out: Path, clips: Clips, splits: Sequence[Split], tested: Rows) -> None:
    """Write `clips.csv`: every usable clip, with the part it takes in the run's own head.

    part: train, validation, test, or empty for a clip that takes none. With several folds the head
    is trained on all of them, `fold` is the one that tests the clip (several with spaces between them,
    where folds are repeated), and the test is the named test set's (`tested`, row numbers).
    """
    part = np.full(len(clips), "", dtype=object)
    fold = np.full(len(clips), "", dtype=object)
    if len(splits) > 1:
        for split in splits:
            at = clips.positions(split.test)
            part[at] = "train"
            fold[at] = [f"{before} {split.fold}".strip() for before in fold[at]]
        part[clips.positions(tested)] = "test"
    else:
        for name in PARTS:
            part[clips.positions(getattr(splits[0], name))] = name
    spans = {SPAN: fragments(clips.table)}
    table = clips.table.assign(row=clips.rows, part=part, fold=fold, **spans)
    write_table(table.reindex(columns=list(COLUMNS), fill_value=""), out / CLIPS)


def read_clips(run: Path) -> pd.DataFrame:
    """A run's `clips.csv` with text columns as text; empty for a run made before that file was."""
    if not (run / CLIPS).exists():
        return pd.DataFrame(columns=list(COLUMNS))
    texts = dict.fromkeys(("video_id", "label", "group", "part", "fold", "sha256", SPAN), str)
    return read_table(run / CLIPS, dtype=texts)


def trained_clips(run: Path, table: pd.DataFrame) -> pd.DataFrame:
    """The clips that the head of a run has seen: video_id, group, sha256 and digest of each.

    Its training and validation clips, or, with several folds, all of them. For a run made before
    `clips.csv`, groups and hashes are those that `table` (a store's) has under the same ids.
    """
    clips = read_clips(run)
    if len(clips):
        return clips[clips["part"].isin(["train", "validation"])]
    config = read_config(run)
    parts = PARTS if config["folds"] else ("train", "validation")
    records = [split_records(config)[0][part] for part in parts]
    ids = [str(v) for record in records for v in record["video_ids"]]
    seen = pd.DataFrame({"video_id": ids, "digest": [d for r in records for d in r["digests"]]})
    known = table.reindex(columns=["video_id", "group", "sha256"], fill_value="")
    known = known.assign(**{SPAN: fragments(table)})
    nothing = {"group": "", "sha256": "", SPAN: ""}
    return seen.merge(known, on="video_id", how="left").fillna(nothing)
