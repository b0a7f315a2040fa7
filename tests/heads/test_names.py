"""Labels and ids that other formats take for more than text go through a whole run and back."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pandas as pd
import pytest

from flows.cli.terminal import suggest
from pipeline.drawing import new_figure, save_figure
from pipeline.heads.compare import leaderboards, paired_difference, write_leaderboards
from pipeline.heads.config import TrainConfig
from pipeline.heads.run_folder import read_clips, read_predictions
from pipeline.heads.saved import load_run
from pipeline.heads.training import train
from pipeline.report.figures import board_chart, class_chart, confusion_chart
from tests.heads.sources import rising_or_falling

CLASSES = ("=fall $a$ $\\frac{$", "-ri\rse")
SMALL = {"units": 4, "second_units": 4}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with a run of three folds and one of a plain split, labels and ids as above."""
    source = rising_or_falling(clips=48)
    names = {"fall": CLASSES[0], "rise": CLASSES[1]}
    source.frame["label"] = source.frame["label"].map(names)
    source.frame["video_id"] = [f"={i}\r $\\x$ .mp4" for i in range(48)]
    folder = tmp_path_factory.mktemp("runs")
    for name, split, head in (
        ("folds $1$", "kfold", "mlp"),
        ("+one $2$", "kfold", "frame_average"),
    ):
        options = SMALL if head == "mlp" else {}
        config = TrainConfig(
            head=head, options=options, epochs=1, split=split, folds=2, baselines=False
        )
        train(source, config, folder / name)
    return source, folder


def test_a_run_is_trained_compared_and_read_back(runs, tmp_path):
    source, folder = runs
    table = read_predictions(folder / "folds $1$" / "predictions.csv")
    assert set(table["label"]) <= set(CLASSES)
    assert sorted(table["video_id"]) == sorted(source.frame["video_id"])
    took = read_clips(folder / "folds $1$").set_index("video_id")
    assert took["label"].to_dict() == source.frame.set_index("video_id")["label"].to_dict()
    (board,) = leaderboards(folder)
    assert set(board.table["run"]) == {"folds $1$", "+one $2$"}
    write_leaderboards([board], tmp_path)
    found = paired_difference(folder / "folds $1$", folder / "+one $2$")
    assert -1 <= found["low"] <= found["high"] <= 1
    assert load_run(folder / "+one $2$").classes == sorted(CLASSES)
    assert all(path.stat().st_size for path in folder.rglob("*.png"))


def test_no_json_of_a_run_holds_nan(runs):
    def refuse(word: str) -> None:
        raise ValueError(f"{word} is not JSON")

    _, folder = runs
    for path in folder.rglob("*.json"):
        json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def test_a_text_with_dollars_is_drawn_as_it_is_wherever_it_stands(tmp_path):
    odd = "$\\frac{$"
    figure = new_figure(3, 3)
    axis = figure.subplots()
    axis.barh([odd, "b"], [1, 2])
    axis.set_title(odd)
    axis.set_xticks([0, 1], [odd, odd])
    axis.legend([odd])
    save_figure(figure, tmp_path / "figure.png", dpi=50)


def test_classes_named_by_numbers_are_names_in_the_report():
    table = pd.DataFrame({"label": ["1", "10", "2"], "split": "", "group": ""})
    names = ["1", "10", "2"]
    confusion = pd.DataFrame(np.eye(3), index=names, columns=names)
    board = pd.DataFrame({"run": names, "top1": 0.5, "spread": np.nan, "frame_average": np.nan})
    assert class_chart(table).layout.yaxis.type == "category"
    assert confusion_chart(confusion).layout.xaxis.type == "category"
    assert confusion_chart(confusion).layout.yaxis.type == "category"
    assert board_chart(board, "top-1").layout.yaxis.type == "category"


def test_a_suggested_command_can_be_pasted_into_a_shell(capsys):
    odd = "my clips/it's [bold] $HOME.zarr"
    suggest("train", "--store", odd)
    line = capsys.readouterr().out.splitlines()[0].removeprefix("next: pixels-once ")
    said = subprocess.run(["sh", "-c", f"printf '%s\\n' {line}"], capture_output=True, text=True)
    assert said.stdout.splitlines() == ["train", "--store", odd]
