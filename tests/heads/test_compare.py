"""Runs are ranked only where their figures compare; an export says what the head says."""

from __future__ import annotations

import importlib.util
import shutil

import pandas as pd
import pytest

from flows.cli import compare
from pipeline.errors import ConfigError
from pipeline.heads.clips import load_clips
from pipeline.heads.compare import (
    finished_runs,
    leaderboards,
    paired_difference,
    write_leaderboards,
)
from pipeline.heads.config import TrainConfig
from pipeline.heads.export import export_run
from pipeline.heads.saved import load_run
from pipeline.heads.training import train
from tests.heads.sources import rising_or_falling

DRAWS = False


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two heads on one split, one of them in mixed bfloat16, and one on another split."""
    folder = tmp_path_factory.mktemp("runs")
    clips = load_clips(rising_or_falling(clips=96, groups=48))
    small = {"units": 16, "dense": 8}
    for name, config in {
        "gru": TrainConfig(head="gru", options={"units": 8}, epochs=3),
        "lstm": TrainConfig(head="lstm", options=small, epochs=2, precision="bfloat16", seed=0),
        "elsewhere": TrainConfig(
            head="mlp", options={"units": 8, "second_units": 8}, epochs=2, seed=5, baselines=False
        ),
    }.items():
        train(clips, config, folder / name)
    (folder / "unfinished").mkdir()
    return folder


def test_runs_of_different_test_clips_are_never_in_one_list(runs, tmp_path):
    boards = leaderboards(runs)
    assert [len(board.table) for board in boards] == [2, 1]
    first = boards[0].table
    assert first["top1"].is_monotonic_decreasing
    assert set(first["run"]) == {"gru", "lstm"}
    written = write_leaderboards(boards, tmp_path)
    assert {p.name for p in written} == {
        "leaderboard.csv",
        "leaderboard.png",
        "leaderboard-2.csv",
        "leaderboard-2.png",
    }
    assert len(pd.read_csv(tmp_path / "leaderboard.csv")) == 2


def test_a_lead_comes_with_its_paired_interval(runs):
    found = paired_difference(runs / "gru", runs / "lstm")
    assert found["low"] <= found["difference"] <= found["high"]
    with pytest.raises(ConfigError, match="not tested on the same clips"):
        paired_difference(runs / "gru", runs / "elsewhere")


def test_no_finished_run_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="no finished run"):
        leaderboards(tmp_path)


@pytest.mark.parametrize(
    ("head", "format"),
    [
        ("gru", "saved_model"),
        ("gru", "onnx"),
        *(
            pytest.param(head, format, marks=pytest.mark.long)
            for head, format in (
                ("lstm", "saved_model"),
                ("gru", "openvino"),
                ("lstm", "openvino"),
                ("lstm", "onnx"),
            )
        ),
    ],
)
def test_an_export_says_what_the_head_says(runs, head, format, tmp_path):
    needed = {"saved_model": "tensorflow", "openvino": "openvino", "onnx": "tf2onnx"}[format]
    if importlib.util.find_spec(needed) is None:
        pytest.skip(f"{needed} is not installed")
    name = {"saved_model": "export", "openvino": "export.xml", "onnx": "export.onnx"}[format]
    found = export_run(load_run(runs / head), tmp_path / name, format=format)
    assert found["largest_difference"] <= 1e-4
    with pytest.raises(ConfigError, match="exists"):
        export_run(load_run(runs / head), tmp_path / name, format=format)


def test_an_unknown_format_is_refused(runs, tmp_path):
    with pytest.raises(ConfigError, match="not known"):
        export_run(load_run(runs / "gru"), tmp_path / "x", format="pickle")


@pytest.fixture
def same_clips(runs, tmp_path):
    """`gru` and `lstm` again, and `other`: the lstm's predictions with its rows and one label changed."""
    for name in ("gru", "lstm"):
        shutil.copytree(runs / name, tmp_path / name)
    shutil.copytree(runs / "lstm", tmp_path / "other")
    table = pd.read_csv(tmp_path / "other" / "predictions.csv")
    table["row"] = table["row"].to_numpy()[::-1]
    first = table.index[table["part"] == "test"][0]
    table.loc[first, "label"] = {"fall": "rise", "rise": "fall"}[table.loc[first, "label"]]
    table.to_csv(tmp_path / "other" / "predictions.csv", index=False)
    return tmp_path


def test_clips_are_paired_by_id_and_label_whatever_row_they_had(same_clips):
    boards = leaderboards(same_clips)
    assert [set(board.table["run"]) for board in boards] == [{"gru", "lstm"}, {"other"}]
    plain = paired_difference(same_clips / "gru", same_clips / "lstm")
    found = paired_difference(same_clips / "gru", same_clips / "other")
    assert (found["clips"], found["relabelled"]) == (plain["clips"] - 1, 1)
    assert paired_difference(same_clips / "lstm", same_clips / "other")["difference"] == 0


def test_the_accepted_run_is_listed_once_and_a_replacement_in_the_making_not_at_all(same_clips):
    (same_clips / "accepted").symlink_to("gru")
    shutil.copytree(same_clips / "gru", same_clips / ".gru.next")
    assert [path.name for path in finished_runs(same_clips)] == ["gru", "lstm", "other"]
    assert sum(len(board.table) for board in leaderboards(same_clips)) == 3


def test_compare_says_which_clips_were_not_paired(same_clips, capsys):
    status = compare.run(compare.Settings(runs=str(same_clips), against="gru"), json=False)
    out = " ".join(capsys.readouterr().out.split())
    assert status == 0
    assert "1 of 14 clips have another label in gru and are not paired" in out
    assert "2 test sets: figures of different boards do not compare" in out
