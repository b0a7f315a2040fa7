"""Settings of a sweep."""

from __future__ import annotations

from dataclasses import dataclass

from flows.settings.field import MOST_PROCESSES, setting
from flows.settings.training import TrainingSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSettings(TrainingSettings):
    """Many heads from one store, in parallel: a run and a Prefect task for each."""

    heads: str = setting(
        "",
        'heads separated by spaces, each with options of its own if need be, e.g. "lstm:units=512 '
        'gru:preset=wide mlp"; empty: every head that can read the store',
        metavar="HEADS",
    )
    grid: str = setting(
        "",
        'values to try, e.g. "units=128,512 dropout=0.3,0.5 seed=0,1": settings of the training '
        "or options of the heads; a head without an option is "
        "trained once for all its values",
        metavar="GRID",
    )
    name: str = setting("", "how the runs' names begin (default: the store's)", metavar="PREFIX")
    workers: int = setting(
        0,
        "trainings at a time, each in a process of its own (0: what suits)",
        metavar="N",
        most=MOST_PROCESSES,
    )
