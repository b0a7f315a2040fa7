"""A search's study: Optuna's record of what was tried, in a journal beside the runs.

Only here is Optuna imported (extra `search`). A study belongs to one store, split, heads and settings:
`search.json` has their hash, and another search is refused.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.errors import ConfigError
from pipeline.heads.seeds import derived_seed
from pipeline.heads.space import Point
from pipeline.plain import read_json, write_json, write_table

FORMAT = "pixels-once/search"
FORMAT_VERSION = 1
STARTUP = 10
"""Trials that are drawn at random before what was tried guides the draws, and before any is pruned."""
JOURNAL, RECORD, TABLE = "journal.log", "search.json", "trials.csv"


def require_optuna() -> None:
    """Raise `ConfigError` if Optuna is not installed."""
    if importlib.util.find_spec("optuna") is None:
        raise ConfigError(
            "search needs Optuna: pip install -e '.[search]' in the project's folder, or use sweep"
        )


def score(top1: float, loss: float) -> float:
    """What is maximised: top-1, of equals the lower cross-entropy."""
    return top1 - min(loss, 100.0) / 1000


def claim(folder: Path, record: dict[str, Any], *, overwrite: bool) -> None:
    """Begin a search in `folder`, or go on with it. Raises `ConfigError` if another is there."""
    if overwrite and (folder / RECORD).exists():
        shutil.rmtree(folder)
    record = {"format": FORMAT, "format_version": FORMAT_VERSION, **record}
    if not (folder / RECORD).exists():
        if folder.exists() and any(folder.iterdir()):
            raise ConfigError(f"{folder} is not a search, so it is not used: choose another name")
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / RECORD, record)
        return
    damaged = f"{folder / RECORD} is damaged: start over with --overwrite"
    before = read_json(folder / RECORD, absent=damaged, damaged=damaged)
    changed = [name for name in record if before.get(name) != record[name]]
    if changed:
        raise ConfigError(
            f"{folder} is a search of something else ({', '.join(changed)} differ): bring that back, "
            "choose another name, or start over with --overwrite"
        )


def open_study(folder: Path, seed: int = 0) -> Any:
    """The study in `folder`, which is created if there is none."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        study_name="search",
        storage=optuna.storages.JournalStorage(JournalFileBackend(str(folder / JOURNAL))),
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP),
        direction="maximize",
        load_if_exists=True,
    )


def next_trials(folder: Path, seed: int, wanted: int, most: int) -> Iterator[Any]:
    """The trials to be scored next, at most `most`; none once `wanted` are done.

    What an interrupted search had begun comes first, with the values that it had drawn. Each draw has a
    sampler of its own seed, so a search that is resumed draws what it would have drawn.
    """
    import optuna

    states = [trial.state for trial in open_study(folder).trials]
    running = [
        number for number, state in enumerate(states) if state is optuna.trial.TrialState.RUNNING
    ]
    for number in range(len(states), len(states) + most - len(running)):
        if number < wanted:
            running.append(number)
    for number in sorted(running)[:most]:
        study = open_study(folder, derived_seed(seed, "search", str(number)))
        if number < len(states):
            yield optuna.trial.Trial(study, study.trials[number]._trial_id)
        else:
            yield study.ask()


def report(folder: Path, number: int, step: int, value: float) -> bool:
    """Record the score of a trial after this inner fold; whether it is to be given up."""
    import optuna

    study = open_study(folder)
    frozen = study.trials[number]
    trial = optuna.trial.Trial(study, frozen._trial_id)
    if step not in frozen.intermediate_values:
        trial.report(value, step)
    return bool(trial.should_prune())


def finish(folder: Path, number: int, *, value: float | None, state: str) -> None:
    """Record how a trial ended: `complete` with its value, `pruned` or `fail`."""
    import optuna

    states = {
        name: optuna.trial.TrialState[name.upper()] for name in ("complete", "pruned", "fail")
    }
    open_study(folder).tell(number, value if state == "complete" else None, state=states[state])


def note(folder: Path, number: int, point: Point, **figures: Any) -> None:
    """Keep a trial's point and figures with it."""
    study = open_study(folder)
    for name, value in (("point", point.to_dict()), *figures.items()):
        study._storage.set_trial_user_attr(study.trials[number]._trial_id, name, value)


def trained_before(folder: Path, number: int) -> int | None:
    """Record that this trial is trained as the search's run; returns the one before it, if any."""
    study = open_study(folder)
    before: int | None = study.user_attrs.get("trained")
    study.set_user_attr("trained", number)
    return before


def same_before(folder: Path, number: int, point: Point) -> dict[str, Any]:
    """The figures of a completed trial of the same point; empty if there is none."""
    for line in lines(folder):
        if line["state"] == "complete" and line["point"] == point.to_dict():
            return line if line["trial"] != number else {}
    return {}


def lines(folder: Path) -> list[dict[str, Any]]:
    """Every trial with its state, score, figures and point, in the order they were drawn."""
    return [
        {
            "trial": trial.number,
            "state": trial.state.name.lower(),
            "score": trial.value,
            "top1": trial.user_attrs.get("top1"),
            "loss": trial.user_attrs.get("loss"),
            "error": trial.user_attrs.get("error", ""),
            "point": trial.user_attrs.get("point", {}),
        }
        for trial in open_study(folder).trials
    ]


def best_of(trials: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The trial of the best score, of equals the first. Raises `ConfigError` if none was completed."""
    done = [trial for trial in trials if trial["state"] == "complete"]
    if not done:
        errors = [trial["error"] for trial in trials if trial["error"]]
        raise ConfigError(f"no trial was completed: {errors[0] if errors else 'search again'}")
    return max(done, key=lambda trial: (trial["score"], -trial["trial"]))


def write_trials(folder: Path, trials: Sequence[dict[str, Any]]) -> None:
    """Write `trials.csv`: a line per trial, a column per value that was tried."""
    table = [
        {name: value for name, value in trial.items() if name != "point"}
        | {"head": trial["point"].get("head", "")}
        | trial["point"].get("options", {})
        | trial["point"].get("changes", {})
        for trial in trials
    ]
    write_table(pd.DataFrame(table), folder / TABLE)
