"""One training with several seeds: the mean and the spread of its figures over them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import ConfigError
from pipeline.heads.compare import test_set_key
from pipeline.heads.identity import NOT_COMPARED, Identity
from pipeline.heads.run_folder import read_config, read_metrics
from pipeline.heads.work_folder import RunState, run_state
from pipeline.plain import json_digest

PARTS = ("test", "validation", "test_set", "test_views", "baseline")
"""The parts of `metrics.json` that are summed up."""
NO_MEASURES = ("clips", "groups", "views", "chance", "steps", "videos")

COLUMNS = ("training", "seeds", "top-1", "top-5", "macro-F1", "loss", "validation top-1", "test")
"""The header of a table whose lines are `Repeats.line`."""
Figures = Mapping[str, Mapping[str, Mapping[str, float]]]
"""part → measure → `mean`, `spread` (standard deviation, n − 1), `low` and `high` over the seeds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeats:
    """Finished runs that differ in their seed alone: of one store, head and settings as asked for.

    same_test: whether all were tested on the same clips. Where the seed cuts the test, each has
    others, and the spread is that of split and training together.
    """

    name: str
    head: str
    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    same_test: bool
    figures: Figures

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        values = asdict(self)
        figures: dict[str, Any] = values.pop("figures")
        return values | figures

    def line(self) -> tuple[str | int, ...]:
        """A line of a table under `COLUMNS`: mean ± spread (low to high)."""
        test = [self._text("test", name) for name in ("top1", "top5", "macro_f1", "loss")]
        where = "the same clips" if self.same_test else "other clips for each seed"
        return self.name, len(self.seeds), *test, self._text("validation", "top1"), where

    def _text(self, part: str, name: str) -> str:
        value = self.figures.get(part, {}).get(name)
        form = "{mean:.3f} ± {spread:.3f} ({low:.3f} to {high:.3f})"
        return form.format(**value) if value else ""


def repeats_among(folders: Sequence[Path]) -> list[Repeats]:
    """Every training that was finished with two seeds or more, in the order of the folders.

    Runs that do not record what they were made of (an older version's) are passed over.
    """
    sets: dict[str, dict[int, Path]] = {}
    for folder in folders:
        if run_state(folder) is RunState.FINISHED:
            recipe = _recipe(folder)
            if recipe is not None:
                seed = int(read_config(folder)["train"]["seed"])
                sets.setdefault(recipe, {}).setdefault(seed, folder)
    return [_repeats(runs) for runs in sets.values() if len(runs) > 1]


def _repeats(runs: Mapping[int, Path]) -> Repeats:
    seeds, folders = zip(*sorted(runs.items()), strict=True)
    metrics = [read_metrics(run) for run in folders]
    parts = [part for part in PARTS if part in metrics[0]]
    names = tuple(run.name for run in folders)
    return Repeats(
        # What the names are but for `-seed=N`; all of them where that is not one name.
        name=", ".join(sorted({re.sub(r"-seed=\d+", "", name) for name in names})),
        head=str(metrics[0]["head"]),
        runs=names,
        seeds=seeds,
        same_test=len({test_set_key(run) for run in folders}) == 1,
        figures={part: _spreads([run[part] for run in metrics]) for part in parts},
    )


def _spreads(figures: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Of every number that all of these have."""
    spreads = {}
    for name in figures[0]:
        values = [figure.get(name) for figure in figures]
        if name not in NO_MEASURES and all(isinstance(value, int | float) for value in values):
            numbers = np.array(values, dtype=np.float64)
            spreads[name] = {
                "mean": float(numbers.mean()),
                "spread": float(numbers.std(ddof=1)),
                "low": float(numbers.min()),
                "high": float(numbers.max()),
            }
    return spreads


def _recipe(folder: Path) -> str | None:
    """A hash of all that decides a run but its seed; None where the run does not record it.

    Settings count as they were asked for: the batch that `auto` means may follow from the split,
    which follows from the seed.
    """
    config = read_config(folder)
    try:
        identity = Identity.load(folder)
    except ConfigError:
        return None
    if identity is None or "asked" not in config:
        return None
    asked = {k: v for k, v in config["asked"].items() if k not in (*NOT_COMPARED, "seed")}
    return json_digest([identity.made_of, dict(identity.head), asked])
