"""What says nothing of the action and still tells the class: leak checks under a run's own folds.

A data set may give its labels away by a watermark, a frame rate or the size of its files. So the
same classifier that never sees the action is trained and tested as a head is, on the same folds by
whole groups, once for each such hint. What it scores above chance a head may have scored so, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.errors import ConfigError
from pipeline.heads.clips import Clips
from pipeline.heads.compare import clips_tested
from pipeline.heads.measures import bootstrap_interval
from pipeline.heads.seeds import derived_seed
from pipeline.heads.source import Array, Float64, Mask, group_names
from pipeline.heads.splits import Split
from pipeline.plain import json_digest, read_json, write_json

FORMAT = "pixels-once/leaks"
FORMAT_VERSION = 1
TREES = 300
BORDER = "border"
WORDS = {
    BORDER: "one frame's border strip",
    "file": "all facts of the file",
    "file_size": "file size",
    "bit_rate": "bit rate",
    "duration": "duration",
    "frame_rate": "frame rate",
    "picture_shape": "picture shape",
}
"""Check → what it sees, in words."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Hint:
    """What one check sees of each clip: `values` (clips, numbers), and of which clips it is known.

    reason: why it is known of none, or not of all
    """

    name: str
    values: Array
    known: Mask
    reason: str = ""

    @classmethod
    def unknown(cls, name: str, clips: int, reason: str) -> Hint:
        """One that is known of no clip."""
        values, known = np.zeros((clips, 1), np.float32), np.zeros(clips, bool)
        return cls(name=name, values=values, known=known, reason=reason)


def file_hints(table: pd.DataFrame) -> list[Hint]:
    """The facts of the files that a store's table has: all together, and each alone.

    A value that is not known is −1: that, too, may tell the class.
    """
    number = {name: _column(table, name) for name in ("size_bytes", "fps", "frames_decoded")}
    shape = [_column(table, name) for name in ("width", "height", "pixel_aspect")]
    with np.errstate(divide="ignore", invalid="ignore"):
        seconds = number["frames_decoded"] / number["fps"]
        rate = 8 * number["size_bytes"] / seconds
    facts = {
        "file_size": [number["size_bytes"]],
        "bit_rate": [rate],
        "duration": [seconds, number["frames_decoded"]],
        "frame_rate": [number["fps"]],
        "picture_shape": shape,
    }
    hints = [_hint(name, columns) for name, columns in facts.items()]
    return [_hint("file", [column for columns in facts.values() for column in columns]), *hints]


def check_leaks(
    clips: Clips,
    splits: Sequence[Split],
    hints: Sequence[Hint],
    on_check: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """How well each hint alone tells the classes of test clips: the record, as plain JSON values.

    Trained on the training and validation clips of each fold, never on its test clips; intervals are
    over groups, as a run's are. `lead` is the paired difference to the commonest class of training.
    """
    tables = []
    for number, hint in enumerate(hints):
        on_check(number, len(hints))
        tables.append(_tested(clips, splits, hint))
    everyone = Hint.unknown("majority", len(clips), "")
    majority = _tested(clips, splits, everyone)["majority"]
    repeats = 1 + max(split.repeat for split in splits)
    tested = np.unique(np.concatenate([split.test for split in splits]))
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "tested": tested_hash(clips, splits),
        "split": splits[0].how,
        "seed": splits[0].seed,
        "folds": len(splits) // repeats,
        "repeats": repeats,
        "clips": len(tested),
        "groups": len(set(group_names(clips.table.loc[tested]))),
        "chance": 1 / len(clips.classes),
        "majority": float(majority.mean()),
        "checks": [_figures(hint, table) for hint, table in zip(hints, tables, strict=True)],
    }


def tested_hash(clips: Clips, splits: Sequence[Split]) -> str:
    """A hash of each fold's test clips and their labels; not of their features."""
    label = clips.table.set_index(clips.table["video_id"].astype(str))["label"].astype(str)
    ids = [clips.table.loc[split.test, "video_id"].astype(str) for split in splits]
    return json_digest([[[name, label[name]] for name in sorted(fold)] for fold in ids])


def record_file(runs: Path, tested: str) -> Path:
    """Where the leak checks of these test clips are recorded in a folder of runs."""
    return runs / f"leaks-{tested[:16]}.json"


def record_leaks(runs: Path, record: Mapping[str, Any]) -> Path:
    """Write the record to a folder of runs; returns its file."""
    runs.mkdir(parents=True, exist_ok=True)
    file = record_file(runs, str(record["tested"]))
    write_json(file, record)
    return file


def recorded_leaks(run: Path) -> dict[str, Any] | None:
    """The leak checks that were made on the test clips of a run, whatever its features; else None."""
    tested = json_digest(clips_tested(run))
    file = record_file(run.resolve().parent, tested)
    if not file.exists():
        return None
    damaged = f"{file} is damaged: make it again with `pixels-once leaks --run {run}`"
    record: dict[str, Any] = read_json(file, absent=damaged, damaged=damaged)
    newer = not isinstance(record, dict) or record.get("format_version", 0) > FORMAT_VERSION
    if newer or record.get("format") != FORMAT:
        raise ConfigError(damaged)
    return record if record["tested"] == tested else None


def telling(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The checks that tell the class better than the commonest class does, beyond chance."""
    return [
        check
        for check in record["checks"]
        if check.get("lead_interval") and check["lead_interval"][0] > 0
    ]


def leak_sentence(record: Mapping[str, Any]) -> str:
    """The checks of a record in one line, for the table of a board or the page of a run."""
    by_name = {check["name"]: check for check in record["checks"]}
    words = {BORDER: WORDS[BORDER], "file": "the file's facts"}
    told = ", ".join(
        f"{what} not checked"
        if by_name[name]["top1"] is None
        else f"{what} {by_name[name]['top1']:.3f}"
        for name, what in words.items()
        if name in by_name
    )
    names = ", ".join(WORDS[check["name"]] for check in telling(record))
    return (
        f"leak check: without any action {told} (chance {record['chance']:.3f}, always the commonest "
        f"class {record['majority']:.3f}); beyond chance: {names or 'none'}"
    )


def _figures(hint: Hint, table: pd.DataFrame) -> dict[str, Any]:
    """A check's figures; None where nothing could be tested."""
    figures: dict[str, Any] = {"name": hint.name, "sees": WORDS[hint.name], "reason": hint.reason}
    table = table[table["tested"]]
    if not len(table):
        nothing = dict.fromkeys(("top1", "interval", "lead", "lead_interval"))
        return figures | nothing | {"clips": 0}
    hits, groups = table["hit"].to_numpy(float), table["group"].to_numpy()
    lead = hits - table["majority"].to_numpy(float)
    return figures | {
        "top1": float(hits.mean()),
        "interval": _interval(hits, groups),
        "lead": float(lead.mean()),
        "lead_interval": _interval(lead, groups),
        "clips": int(table["row"].nunique()),
    }


def _interval(values: Float64, groups: Array) -> list[float] | None:
    low, high = bootstrap_interval(values, groups)
    return None if np.isnan(low) else [low, high]


def _tested(clips: Clips, splits: Sequence[Split], hint: Hint) -> pd.DataFrame:
    """Every test clip of every fold: row, group, tested, hit, and whether the commonest class hits."""
    groups, parts = group_names(clips.table), []
    for split in splits:
        fitted = clips.positions(np.union1d(split.train, split.validation))
        test = clips.positions(split.test)
        commonest = int(np.bincount(clips.labels[fitted]).argmax())
        fitted, known = fitted[hint.known[fitted]], hint.known[test]
        seed = derived_seed(split.seed, "leaks", hint.name, f"fold {split.fold}")
        predicted = np.full(len(test), -1, np.int64)
        if known.any() and len(fitted):
            predicted[known] = _predicted(hint.values, clips.labels, fitted, test[known], seed)
        columns = {
            "row": clips.rows[test],
            "group": groups[test],
            "tested": predicted >= 0,
            "hit": predicted == clips.labels[test],
            "majority": clips.labels[test] == commonest,
        }
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def _predicted(values: Array, labels: Array, fitted: Array, test: Array, seed: int) -> Array:
    """The classes of `test` by extremely randomised trees of `fitted`: nothing in them to be chosen.

    P. Geurts et al., Extremely randomized trees (2006). They see steps and mixtures in a few numbers
    as well as a colour in thousands.
    """
    from sklearn.ensemble import ExtraTreesClassifier

    trees = ExtraTreesClassifier(TREES, random_state=seed)
    trees.fit(values[fitted], labels[fitted])
    return np.asarray(trees.predict(values[test]), np.int64)


def _hint(name: str, columns: Sequence[Float64]) -> Hint:
    values = np.stack(columns, axis=1)
    values = np.where(np.isfinite(values) & (values > 0), values, -1)
    known = bool((values > 0).any())
    reason = "" if known else "the store does not know it"
    return Hint(
        name=name,
        values=values.astype(np.float32),
        known=np.full(len(values), known),
        reason=reason,
    )


def _column(table: pd.DataFrame, name: str) -> Float64:
    if name not in table:
        return np.full(len(table), np.nan)
    return table[name].to_numpy(np.float64)
