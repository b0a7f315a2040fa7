"""A search: what it draws and by what it chooses, that it resumes, and that its winner is a run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import store
from flows.settings.training import SearchSettings
from flows.train import study
from flows.train.search import search_name, trial_clips
from pipeline.errors import ConfigError
from pipeline.heads.clips import load_clips
from pipeline.heads.config import TrainConfig
from pipeline.heads.inner import inner_splits, scores
from pipeline.heads.plan import make_splits
from pipeline.heads.shuffling import with_steps_shuffled
from pipeline.heads.space import draw
from pipeline.heads.splits import make_split
from pipeline.heads.zoo import head_kind
from tests.flows.running import Finished, run, run_here
from tests.flows.stores import rising_or_falling
from tests.heads.sources import rising_or_falling as in_memory

HEADS: list[tuple[str, dict[str, Any]]] = [
    ("gru", {"pool": "mean"}),
    ("tcn", {}),
    ("pyramid", {}),
]
ASKED = TrainConfig(head="gru", lr=0.01)


def drawn(folder: Path, wanted: int, most: int = 1, score: Any = None) -> list[dict[str, Any]]:
    """Draw and score until `wanted` trials are done; returns the points in their order."""
    study.claim(folder, {"clips": "a"}, overwrite=False)
    while trials := list(study.next_trials(folder, 3, wanted, most)):
        for trial in trials:
            point = draw(trial, HEADS, ASKED)
            study.note(folder, trial.number, point)
            value = len(point.options) / 100 if score is None else score(point)
            study.finish(folder, trial.number, value=value, state="complete")
    return [line["point"] for line in study.lines(folder)]


def test_every_point_is_a_training_that_can_be_and_keeps_what_was_given(tmp_path: Path) -> None:
    points = drawn(tmp_path / "s", 24)
    assert len(points) == 24
    assert {point["head"] for point in points} == {"gru", "tcn", "pyramid"}
    for point in points:
        head_kind(point["head"]).configure(point["options"])
        TrainConfig(head=point["head"], options=point["options"], **point["changes"])
        assert "lr" not in point["changes"]
        if point["head"] == "gru":
            assert point["options"]["pool"] == "mean"
            assert point["changes"]["stopping"] == "fixed"
        if point["head"] == "pyramid":
            assert not point["options"]
            assert not point["changes"]


@pytest.mark.long
def test_a_search_that_was_interrupted_draws_what_it_would_have_drawn(tmp_path: Path) -> None:
    whole = drawn(tmp_path / "whole", 14)
    drawn(tmp_path / "half", 5)
    # Killed after a draw, before its score was recorded.
    (trial,) = study.next_trials(tmp_path / "half", 3, 14, 1)
    draw(trial, HEADS, ASKED)
    assert drawn(tmp_path / "half", 14) == whole
    assert drawn(tmp_path / "half", 14) == whole, "a search that is done draws nothing more"


def test_trials_behind_the_median_after_a_fold_are_given_up(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    study.claim(folder, {}, overwrite=False)
    for number in range(study.STARTUP + 2):
        (trial,) = study.next_trials(folder, 0, 99, 1)
        draw(trial, HEADS, ASKED)
        good = number <= study.STARTUP
        given_up = study.report(folder, trial.number, 0, 0.9 + number / 1000 if good else 0.2)
        assert given_up is (not good)
        state = "complete" if good else "pruned"
        study.finish(folder, trial.number, value=0.9 if good else None, state=state)
    lines = study.lines(folder)
    assert lines[-1]["state"] == "pruned"
    assert study.best_of(lines)["trial"] == 0


def test_another_search_is_not_taken_over(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    study.claim(folder, {"seed": 0, "heads": ["gru"]}, overwrite=False)
    study.claim(folder, {"seed": 0, "heads": ["gru"]}, overwrite=False)
    with pytest.raises(ConfigError, match=r"search of something else \(heads differ\)"):
        study.claim(folder, {"seed": 0, "heads": ["tcn"]}, overwrite=False)
    study.claim(folder, {"seed": 0, "heads": ["tcn"]}, overwrite=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is not a search"):
        study.claim(tmp_path / "other", {}, overwrite=True)


def test_without_optuna_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"search needs Optuna: pip install -e '.\[search\]'"):
        study.require_optuna()


def test_a_search_has_one_seed_and_a_plain_name() -> None:
    assert search_name(SearchSettings(store="a/My Clips.zarr")) == "search-my-clips"
    with pytest.raises(ConfigError, match="seeds is 3"):
        search_name(SearchSettings(seeds=3))
    with pytest.raises(ConfigError, match="give a plain folder name"):
        search_name(SearchSettings(name="a/b"))


def test_scores_read_no_clip_but_those_of_the_training_part() -> None:
    source = in_memory(clips=96, groups=24)
    config = TrainConfig(head="frame_average", split="grouped")
    folds = inner_splits(load_clips(source), config, "a head")
    before = list(scores(load_clips(source), config, folds))
    split = make_split(load_clips(source).table, how="grouped")
    assert sorted(np.concatenate([fold.test for fold in folds])) == sorted(split.train)
    others = np.concatenate([split.validation, split.test])
    source.features[others] = np.random.default_rng(1).normal(size=source.features[others].shape)
    assert list(scores(load_clips(source), config, folds)) == before


def test_what_a_training_refuses_is_refused_before_the_first_trial() -> None:
    clips = load_clips(in_memory(clips=96, groups=24))
    for changes, says in (({"repeats": 3}, "repeats is 3"), ({"join": "early"}, "join is early")):
        with pytest.raises(ConfigError, match=says):
            inner_splits(clips, TrainConfig(split="grouped", **changes), "a head")


def test_a_choice_reads_the_clips_that_the_training_uses_and_no_more() -> None:
    clips = load_clips(in_memory(clips=96, groups=24))
    config = TrainConfig(split="grouped", train_groups=0.5)
    (split,) = make_splits(clips, config)
    folds = inner_splits(clips, config, "a head")
    assert sorted(np.concatenate([fold.test for fold in folds])) == sorted(split.train)
    assert len(split.train) < len(make_split(clips.table, how="grouped").train)


def test_trials_see_shuffled_steps_where_the_run_will(tmp_path: Path) -> None:
    rising_or_falling(tmp_path / "s.zarr", rows=24)
    settings = SearchSettings(store=str(tmp_path / "s.zarr"), seed=3)
    plain, shuffled = (
        trial_clips(replace(settings, shuffle_steps=asked)).features for asked in (False, True)
    )
    assert (plain != shuffled).any()
    wanted = with_steps_shuffled(load_clips(store.open(settings.store)), 3).features
    np.testing.assert_array_equal(shuffled, wanted)


WORDS = ("search", "--store", "s.zarr", "--heads", "pyramid mlp:units=4,second_units=4")


@pytest.fixture(scope="module")
def searched(prefect_api: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Finished]:
    """A folder with a store and a search of it, and what the command said."""
    folder = tmp_path_factory.mktemp("search")
    rising_or_falling(folder / "s.zarr", rows=96)
    words = (*WORDS, "--epochs", "2", "--trials", "6", "--json")
    return folder, run(*words, cwd=folder, timeout_s=600)


@pytest.mark.long
@pytest.mark.timeout(1260)
def test_the_best_trial_is_trained_as_a_run_like_any_other(
    searched: tuple[Path, Finished],
) -> None:
    folder, said = searched
    assert said.status == 0, said.err
    trials = said.json["trials"]
    assert len(trials) == 6
    done = [trial for trial in trials if trial["state"] == "complete"]
    assert said.json["best"]["score"] == max(trial["score"] for trial in done)
    name = said.json["winner"]["name"]
    config = json.loads((folder / "runs" / name / "config.json").read_text())
    assert config["head"]["name"] == said.json["best"]["point"]["head"]
    assert said.json["winner"]["metrics"]["test"]["clips"] > 0
    assert (folder / "runs" / f"{name}.search" / "trials.csv").exists()
    compared = run("compare", "--json", cwd=folder)
    assert [line["run"] for line in compared.json["boards"][0]["runs"]] == [name]
    again = run(*WORDS, "--epochs", "2", "--trials", "6", "--json", cwd=folder, timeout_s=600)
    assert again.json["trials"] == trials
    assert again.json["winner"]["skipped"]
    others = run(*WORDS, "--epochs", "3", cwd=folder, timeout_s=600)
    assert others.status == 1
    assert "is a search of something else" in others.err


@pytest.mark.long
def test_the_command_without_optuna_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rising_or_falling(tmp_path / "s.zarr")
    monkeypatch.setattr(study.importlib.util, "find_spec", lambda name: None)
    monkeypatch.chdir(tmp_path)
    said = run_here("search", "--store", "s.zarr")
    assert said.status == 1
    assert "search needs Optuna" in said.err
    assert store.open("s.zarr").counts()["ready"]
