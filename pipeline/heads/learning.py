"""Learning curves: heads trained on a share of the groups, and tested on the same clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import ConfigError
from pipeline.heads.compare import test_set_key
from pipeline.heads.identity import NOT_COMPARED, Identity
from pipeline.heads.run_folder import read_config, read_metrics
from pipeline.plain import json_digest

COLUMNS = ("training", "head", "share of groups", "top-1", "95 % interval", "to the next")
"""The header of a table whose lines are those of `LearningCurve.lines`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningCurve:
    """Runs that differ in their share of the training groups alone, the smallest share first."""

    name: str
    head: str
    runs: tuple[str, ...]
    shares: tuple[float, ...]
    top1: tuple[float, ...]
    intervals: tuple[tuple[float, float] | None, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    def lines(self) -> list[tuple[str, ...]]:
        """Lines of a table under `COLUMNS`."""
        steps = [*np.diff(self.top1), None]
        return [
            (
                self.name,
                self.head,
                f"{share:g}",
                f"{top1:.3f}",
                "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}",
                "" if step is None else f"{step:+.3f}",
            )
            for share, top1, interval, step in zip(
                self.shares, self.top1, self.intervals, steps, strict=True
            )
        ]


def curves_among(folders: Sequence[Path]) -> list[LearningCurve]:
    """The learning curve of every training that was finished with two shares of groups or more."""
    curves: dict[str, dict[float, Path]] = {}
    for folder in folders:
        recipe = _recipe(folder)
        if recipe is not None:
            share = float(read_config(folder)["train"].get("train_groups", 1.0))
            curves.setdefault(recipe, {}).setdefault(share, folder)
    return [_curve(runs) for runs in curves.values() if len(runs) > 1]


def _curve(runs: Mapping[float, Path]) -> LearningCurve:
    shares, folders = zip(*sorted(runs.items()), strict=True)
    metrics = [read_metrics(run) for run in folders]
    tests = [run["test"] for run in metrics]
    intervals = [test.get("top1_interval") for test in tests]
    return LearningCurve(
        name=folders[-1].name,
        head=str(metrics[-1]["head"]),
        runs=tuple(run.name for run in folders),
        shares=shares,
        top1=tuple(float(test.get("top1_pooled", test["top1"])) for test in tests),
        intervals=tuple(None if one is None else (one[0], one[1]) for one in intervals),
    )


def _recipe(folder: Path) -> str | None:
    """A hash of all that decides a run but its share of groups; None where it is not recorded."""
    config = read_config(folder)
    try:
        identity = Identity.load(folder)
    except ConfigError:
        return None
    if identity is None or "asked" not in config:
        return None
    left_out = (*NOT_COMPARED, "train_groups")
    asked = {name: value for name, value in config["asked"].items() if name not in left_out}
    return json_digest([identity.made_of, dict(identity.head), asked, test_set_key(folder)])
