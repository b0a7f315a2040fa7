"""`--seeds N`: ordinary runs, one a seed; mean and spread beside them; gone on with after Ctrl-C."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import store
from flows.settings.training import SweepSettings, TrainSettings
from flows.train import shared
from flows.train.runs import over_seeds, run_trainings, seeded
from flows.train.shared import Made
from flows.train.sweep import trials
from pipeline.errors import ConfigError
from pipeline.heads.run_folder import read_config
from tests.flows.running import Finished, run_here
from tests.flows.stores import rising_or_falling
from tests.heads.test_identity import result_of

DRAWS = False
WORDS = ("--head", "mlp", "--units", "4,4", "--epochs", "1", "--store", "s.zarr")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store whose data give the split, and two runs of seeds 0 and 1."""
    folder = tmp_path_factory.mktemp("seeds")
    rising_or_falling(folder / "s.zarr")
    with store.Writer.acquire(str(folder / "s.zarr"), owner="test") as writer:
        groups = writer.table["group"].to_numpy()
        writer.set(np.arange(48), split=np.where(groups < "g05", "test", "train"))
        writer.flush()
    settings = TrainSettings(
        store=str(folder / "s.zarr"),
        head="mlp",
        units="4,4",
        epochs=1,
        runs=str(folder / "runs"),
        seeds=2,
    )
    assert len(run_trainings(settings)) == 2
    return folder


@pytest.fixture
def command(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Finished]:
    """A command run in a folder of its own with a copy of the store and the two runs."""
    shutil.copytree(work, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return lambda *words: run_here(*words)


def test_each_seed_is_an_ordinary_run_and_the_spread_stands_beside_them(
    command: Callable[..., Finished], tmp_path: Path
) -> None:
    said = command("train", *WORDS, "--seeds", "3", "--resume", "--json")
    assert said.status == 0, said.err
    assert said.err.count("is finished already") == 2
    names = [Path(one["run"]).name for one in said.json["runs"]]
    assert names == [f"mlp-s-seed={seed}" for seed in range(3)]
    top1 = [one["test"]["top1"] for one in said.json["runs"]]
    told = said.json["over_seeds"]
    assert (told["name"], told["seeds"], told["same_test"]) == ("mlp-s", [0, 1, 2], True)
    assert told["test"]["top1"] == pytest.approx(
        {"mean": np.mean(top1), "spread": np.std(top1, ddof=1), "low": min(top1), "high": max(top1)}
    )
    assert {"top5", "loss", "macro_f1", "ece"} <= set(told["test"])
    assert "frame_average" in told["baseline"]
    boards = command("compare", "--json").json
    assert [len(board["runs"]) for board in boards["boards"]] == [3]
    assert boards["over_seeds"] == [told]


@pytest.mark.long
def test_a_run_of_several_is_the_run_of_its_seed_alone_and_stands_on_every_page(
    command: Callable[..., Finished], tmp_path: Path
) -> None:
    alone = command("train", *WORDS, "--seed", "1", "--name", "alone")
    assert alone.status == 0, alone.err
    assert result_of(tmp_path / "runs" / "alone") == result_of(tmp_path / "runs" / "mlp-s-seed=1")
    assert "over seeds: mean ± standard deviation" in command("compare").out
    assert command("report", "--store", "s.zarr").status == 0
    assert "Trainings that differ in their seed alone" in (tmp_path / "report.html").read_text()


def test_the_same_name_with_other_settings_is_refused_before_any_training(
    command: Callable[..., Finished], tmp_path: Path
) -> None:
    before = sorted(path.name for path in (tmp_path / "runs").iterdir())
    exists = command("train", *WORDS, "--seeds", "3")
    assert exists.status == 1
    assert "mlp-s-seed=0 exists" in exists.err
    other = command("train", *WORDS, "--seeds", "3", "--resume", "--lr", "0.5")
    assert other.status == 1
    assert "lr 0.0001, now 0.5" in other.err
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == before


@pytest.mark.long
def test_ctrl_c_keeps_what_is_finished_and_resume_goes_on(
    command: Callable[..., Finished], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def ctrl_c(report: Any, *_: str) -> None:
        if report.epoch == 1:
            raise KeyboardInterrupt

    shutil.rmtree(tmp_path / "runs" / "mlp-s-seed=1")
    with monkeypatch.context() as pressed:
        pressed.setattr(shared, "print_epoch", ctrl_c)
        stopped = command("train", *WORDS, "--seeds", "3", "--resume", "--epochs", "1", "--json")
    assert stopped.status == 130, stopped.err
    assert [one["stopped"] for one in stopped.json["runs"]] == [False, True]
    assert stopped.json["over_seeds"] is None
    assert not (tmp_path / "runs" / "mlp-s-seed=2").exists()
    again = command("train", *WORDS, "--seeds", "2", "--resume", "--json")
    assert again.status == 0, again.err
    assert again.json["over_seeds"]["seeds"] == [0, 1]


def test_runs_of_other_settings_or_clips_make_no_spread_with_these(
    work: Path, tmp_path: Path
) -> None:
    shutil.copytree(work / "runs", tmp_path / "runs")
    made = [Made(folder=folder, metrics={}) for folder in (tmp_path / "runs").iterdir()]
    both = over_seeds(made)
    assert both is not None
    assert both.runs == ("mlp-s-seed=0", "mlp-s-seed=1")
    config = tmp_path / "runs" / "mlp-s-seed=1" / "config.json"
    asked = read_config(config.parent)["asked"]
    config.write_text(config.read_text().replace(f'"lr": {asked["lr"]}', '"lr": 0.5'))
    assert over_seeds(made) is None


def test_a_sweep_of_several_seeds_is_its_grid_of_seeds() -> None:
    settings = SweepSettings(store="s.zarr", heads="mlp", seeds=3, seed=5, grid="units=8,16")
    found = {trial.name: trial.changes for trial in trials(settings, (6,))}
    by_grid = trials(replace(settings, seeds=1, grid="units=8,16 seed=5,6,7"), (6,))
    assert found == {trial.name: trial.changes for trial in by_grid}
    assert len(found) == 6
    with pytest.raises(ConfigError, match="grid has seed, and seeds is 3: keep one"):
        trials(replace(settings, grid="seed=1"), (6,))


def test_the_last_seed_is_within_bounds() -> None:
    with pytest.raises(ConfigError, match="begin lower"):
        seeded(TrainSettings(seed=2**32 - 1, seeds=2))
