"""A sweep takes a run over, finished or not, only if it is the run that it would make."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from flows.settings.training import SweepSettings
from flows.train import promotion, sweep
from flows.train.shared import Loaded
from flows.train.sweep import Trial, run_trial, trials
from pipeline.errors import ConfigError
from pipeline.heads import plan
from pipeline.heads.clips import load_clips
from tests.heads.test_identity import EXACT, changed_source, interrupt_at, result_of

SETTINGS = SweepSettings(
    store="s.zarr", heads="mlp", units="8", options="dropout=0.3", epochs=3, split="auto"
)
SOURCES = {
    "nothing": EXACT,
    "class renamed": r"another label .*: fall, now drop",
    "class added": r"6 clips are new \(new/0.mp4 for one\)",
    "clips added": r"6 clips are new",
    "class gone": r"16 clips are gone",
    "labels swapped": r"2 clips have another label",
    "rows permuted": EXACT,
    "features changed": r"1 clip has other features \(rise/clip_007.mp4",
    "spec changed": r"backbone none, now other",
}
CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "head": ({"heads": "gru"}, r"head mlp, now gru"),
    "width": ({"units": "16"}, r"units 8, now 16"),
    "lr": ({"lr": 0.01}, r"lr 0.0001, now 0.01"),
    "the same lr by name": ({"lr": 0.0001}, EXACT),
    "epochs": ({"epochs": 9}, r"epochs 3, now 9"),
    "split": ({"split": "stratified"}, r"split grouped, now stratified"),
    "seed": ({"seed": 1}, r"seed 0, now 1"),
    "folds": ({"folds": 4}, EXACT),
    "kfold": ({"split": "kfold", "folds": 3}, r"split grouped, now kfold; folds 1, now 3"),
}
CASES = [
    *((change, {}, says) for change, says in SOURCES.items()),
    *((change, *rest) for change, rest in CHANGES.items()),
]


def loaded(change: str = "nothing") -> Loaded:
    return Loaded(clips=load_clips(changed_source(change)), first_stage={})


def only(settings: SweepSettings) -> Trial:
    (trial,) = trials(settings, (6,))
    return trial


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `finished` and `unfinished`, each with the run of one trial, and the head's name."""
    folder = tmp_path_factory.mktemp("swept")
    for state in ("finished", "unfinished"):
        settings = dataclasses.replace(SETTINGS, runs=str(folder / state))
        if state == "finished":
            run_trial(only(settings), settings, loaded())
            continue
        from pipeline.heads.training import train

        config = sweep.trial_config(settings, only(settings), baselines=True)
        out = folder / state / only(settings).name
        assert train(loaded().clips, config, out, on_epoch=interrupt_at(1))["stopped"]
    return folder


@pytest.mark.parametrize(
    ("state", "change", "settings", "says"),
    [
        pytest.param(
            state,
            *case,
            id=f"{state}: {case[0]}",
            marks=[pytest.mark.long] if state == "unfinished" and case[2] == EXACT else [],
        )
        for case in CASES
        for state in ("finished", "unfinished")
    ],
)
def test_a_sweep_takes_over_only_the_run_it_would_make(
    swept: Path, tmp_path: Path, state: str, change: str, settings: dict[str, Any], says: str
) -> None:
    asked = dataclasses.replace(SETTINGS, runs=str(tmp_path), **settings)
    trial = only(asked)
    out = tmp_path / trial.name
    shutil.copytree(swept / state / only(SETTINGS).name, out)
    if says != EXACT:
        with pytest.raises(ConfigError, match=says) as refused:
            run_trial(trial, asked, loaded(change))
        assert "--overwrite" in str(refused.value)
        return
    outcome = run_trial(trial, asked, loaded(change))
    assert outcome.skipped == (state == "finished")
    assert outcome.metrics == json.loads((out / "metrics.json").read_text())
    assert result_of(out) == result_of(swept / "finished" / only(SETTINGS).name)


def test_a_finished_run_keeps_its_split_where_one_is_cut_in_another_way_now(
    swept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = dataclasses.replace(SETTINGS, runs=str(tmp_path))
    out = tmp_path / only(settings).name
    shutil.copytree(swept / "finished" / out.name, out)
    cut = plan.make_split

    def otherwise(*arguments: Any, seed: int, **options: Any) -> Any:
        return dataclasses.replace(cut(*arguments, seed=seed + 1, **options), seed=seed)

    monkeypatch.setattr(plan, "make_split", otherwise)
    assert run_trial(only(settings), settings, loaded()).skipped


@pytest.mark.parametrize("change", [*SOURCES, *CHANGES])
def test_a_refresh_calls_nothing_unchanged_that_is_not(change: str) -> None:
    def state(change: str, settings: dict[str, Any]) -> str:
        asked = dataclasses.replace(SETTINGS, **settings)
        config = sweep.trial_config(asked, only(asked), baselines=True)
        return promotion.state_of(loaded(change).clips, [config])

    settings = CHANGES.get(change, ({}, ""))[0]
    same = state(change if change in SOURCES else "nothing", settings) == state("nothing", {})
    assert same == (change == "nothing")


def test_a_run_of_an_older_version_is_not_called_finished(swept: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, runs=str(tmp_path))
    out = tmp_path / only(settings).name
    shutil.copytree(swept / "finished" / out.name, out)
    (out / "identity.json").unlink()
    with pytest.raises(ConfigError, match=r"older version made it.*--overwrite"):
        run_trial(only(settings), settings, loaded())
    (out / "curves.png").unlink()
    shutil.copy(swept / "finished" / out.name / "identity.json", out)
    assert run_trial(only(settings), settings, loaded()).skipped
    assert (out / "curves.png").exists(), "a picture that was missing is drawn"
