"""Many heads from one store: which are trained, that one failing stops no other, and how they rank."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pandas as pd
import pytest

from flows.extract.tasks import extract_batches
from flows.settings.training import SweepSettings
from flows.train.sweep import train_trial, trials
from pipeline.errors import ConfigError, SpecMismatch
from tests.flows.running import Finished, run, run_here
from tests.flows.stores import rising_or_falling

FEATURES, FRAMES = (2048,), (64, 64, 3)
# 11 that train and one whose option cannot be: the last.
HEADS = (
    "frame_average mlp:units=8,second_units=8 late_fusion:units=8 attention:units=8 "
    "gru:units=4,second_units=4 lstm:units=8,dense=8,dropout=2"
)


def names(**settings: Any) -> list[str]:
    return [
        trial.name for trial in trials(SweepSettings(store="a/My Clips.zarr", **settings), FEATURES)
    ]


def test_what_workers_run_can_be_sent_to_them() -> None:
    for task in (extract_batches, train_trial):
        assert cloudpickle.loads(cloudpickle.dumps(task)).name == task.name


def test_without_heads_every_head_that_can_read_the_store_is_trained() -> None:
    of_features = {t.head for t in trials(SweepSettings(), FEATURES)}
    of_frames = {t.head for t in trials(SweepSettings(), FRAMES)}
    assert {"lstm", "transformer", "frame_average"} <= of_features
    assert {"convlstm", "lrcn", "conv3d"} <= of_frames
    assert "convlstm" not in of_features


def test_a_grid_is_every_combination_and_each_has_a_name_of_its_own() -> None:
    found = names(heads="lstm gru", grid="units=8,16 seed=0,1")
    assert len(found) == len(set(found)) == 8
    assert "lstm-my-clips-units=8-seed=1" in found


def test_an_option_that_a_head_lacks_does_not_multiply_it() -> None:
    found = names(heads="frame_average,lstm", grid="units=8,16")
    assert found == ["frame_average-my-clips", "lstm-my-clips-units=8", "lstm-my-clips-units=16"]


def test_settings_of_the_training_and_options_of_the_head_go_where_they_belong() -> None:
    (one,) = trials(SweepSettings(heads="gru:preset=wide", grid="lr=0.01 dropout=0.1"), FEATURES)
    assert one.options == {"preset": "wide", "dropout": "0.1"}
    assert one.changes == {"lr": 0.01}


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"heads": "lstn"}, ConfigError, "did you mean lstm"),
        ({"heads": "lstm", "grid": "unit=8"}, ConfigError, "grid has 'unit'"),
        ({"heads": "lstm", "grid": "units"}, ConfigError, "write name=value"),
        ({"heads": "lstm", "grid": "seed=one"}, ConfigError, "give a number"),
        ({"heads": "lstm", "grid": "class_weights=ture"}, ConfigError, "give yes or no"),
        ({"heads": "lstm", "grid": "seed=99999999999"}, ConfigError, "seed is 99999999999"),
        ({"heads": "lstm", "grid": "lr=inf"}, ConfigError, "give a finite number"),
        ({"heads": "conv3d"}, SpecMismatch, "reads frames"),
    ],
)
def test_a_sweep_that_cannot_be_is_one_sentence(
    settings: dict[str, str], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        trials(SweepSettings(**settings), FEATURES)


@pytest.fixture(scope="module")
def swept(prefect_api: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Finished]:
    """A folder with a store and the runs of twelve trials, and what the command said."""
    folder = tmp_path_factory.mktemp("sweep")
    rising_or_falling(folder / "twelve.zarr")
    words = ("--heads", HEADS, "--grid", "seed=0,1", "--epochs", "1", "--json")
    return folder, run("sweep", "--store", "twelve.zarr", *words, cwd=folder, timeout_s=900)


@pytest.mark.long
@pytest.mark.timeout(960)
def test_one_that_fails_stops_no_other(swept: tuple[Path, Finished]) -> None:
    folder, said = swept
    assert said.status == 0, said.err
    outcomes = said.json["outcomes"]
    assert len(outcomes) == 12
    failed = [one for one in outcomes if one["error"]]
    assert {one["head"] for one in failed} == {"lstm"}
    assert "dropout of lstm is '2'" in failed[0]["error"]
    assert len(list(folder.glob("runs/*/metrics.json"))) == 10


@pytest.mark.long
@pytest.mark.timeout(960)
def test_every_trial_is_a_task_of_its_own_on_the_server(
    swept: tuple[Path, Finished], prefect_api: str
) -> None:
    of_this = {"flow_runs": {"name": {"any_": ["sweep ← twelve.zarr"]}}}
    query = json.dumps(of_this).encode()
    request = urllib.request.Request(
        f"{prefect_api}/task_runs/filter", query, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20) as reply:
        tasks = json.load(reply)
    states = [task["state_name"] for task in tasks]
    assert sorted(states) == ["Completed"] * 10 + ["Failed"] * 2
    assert len({task["name"] for task in tasks}) == 12


@pytest.mark.long
@pytest.mark.timeout(960)
def test_runs_are_ranked_with_their_lead_over_the_frame_average(
    swept: tuple[Path, Finished],
) -> None:
    folder, _ = swept
    said = run("compare", "--json", cwd=folder)
    assert said.status == 0, said.err
    boards = said.json["boards"]
    # Two seeds are two splits, and so two test sets: never one list.
    assert len(boards) == 2
    for board in boards:
        assert len(board["runs"]) == 5
        assert [line["top1"] for line in board["runs"]] == sorted(
            (line["top1"] for line in board["runs"]), reverse=True
        )
        held = [line["against"] for line in board["runs"] if "against" in line]
        assert len(held) == 4
        # So few groups have no interval.
        assert all(one["groups"] < 5 and one["low"] is None for one in held)
    table = pd.read_csv(folder / "runs" / "leaderboard.csv")
    assert {"top1", "parameters", "inference_clips_per_second", "fingerprint"} <= set(table)
    assert (folder / "runs" / "leaderboard-2.png").exists()
    text = run("compare", cwd=folder).out
    assert "nothing is ranked across them" in text.replace("\n", " ")


@pytest.mark.long
@pytest.mark.timeout(960)
def test_an_export_says_the_same_as_the_head(swept: tuple[Path, Finished]) -> None:
    folder, _ = swept
    name = next(path.name for path in folder.glob("runs/gru-*"))
    said = run("export", "--run", f"runs/{name}", "--format", "openvino", "--json", cwd=folder)
    assert said.status == 0, said.err
    assert said.json["largest_difference"] <= 1e-4
    assert (folder / said.json["path"]).exists()
    again = run("export", "--run", f"runs/{name}", "--format", "openvino", cwd=folder)
    assert again.status == 1
    assert "exists" in again.err
    assert np.isfinite(said.json["largest_difference"])


@pytest.mark.long
def test_views_train_together_and_the_run_remembers_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rising_or_falling(tmp_path / "a.zarr")
    rising_or_falling(tmp_path / "b.zarr", view="mirror")
    words = ("--head", "mlp", "--units", "8,8", "--epochs", "3", "--json")
    said = run_here("train", "--store", "a.zarr,b.zarr", *words)
    assert said.status == 0, said.err
    config = json.loads((tmp_path / "runs" / "mlp-a" / "config.json").read_text())
    assert config["head"]["config"]["units"] == config["head"]["config"]["second_units"] == 8
    assert len(config["first_stage"]["views"]) == 1
    assert config["first_stage"]["clip_seconds"] == 2.0
    assert config["store"]["url"].endswith("a.zarr")
    rising_or_falling(tmp_path / "few.zarr", rows=20, view="mirror")
    refused = run_here("train", "--store", "a.zarr,few.zarr", *words, "--overwrite")
    assert refused.status == 1
    assert "few.zarr lacks 28 of 48 clips" in refused.err
