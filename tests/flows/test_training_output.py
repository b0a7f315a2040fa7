"""What a training prints while it runs, and places that are refused before any work."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.train.shared import print_epoch, print_notes
from pipeline.heads.epochs import EpochReport
from tests.flows.running import run_here
from tests.flows.stores import rising_or_falling
from tests.heads.sources import rising_or_falling as rising_or_falling_in_memory

NAN = float("nan")


def report(**values: object) -> EpochReport:
    given = {"epoch": 3, "epochs": 7, "loss": 0.5, "top1": 0.75, "val_loss": 0.6, "val_top1": 0.7,
             "lr": 1e-3, "seconds": 1.0, "clips_per_second": 9.0, "best": False}  # fmt: skip
    return EpochReport(**(given | values))  # type: ignore[arg-type]


def test_the_last_fit_on_all_clips_is_no_fold_and_has_no_validation(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_epoch(report(fold=4, folds=5))
    print_epoch(report(fold=5, folds=5, val_loss=NAN, val_top1=NAN))
    print_epoch(report())
    fold, last, plain = capsys.readouterr().err.splitlines()
    assert fold.startswith("fold 5/5 · epoch   3/7")
    assert last.startswith("all clips · epoch   3/7")
    assert "nan" not in last
    assert "validation" not in last
    assert plain.startswith("epoch   3/7")


@pytest.mark.parametrize(
    ("words", "setting"),
    [
        (("predict", "--run", "r", "--video", "v.mp4", "--csv", "absent/x.csv"), "csv"),
        (("scan", "--videos", ".", "--csv", "absent/x.csv"), "csv"),
        (("similar", "--store", "s.zarr", "--out", "absent/x.png"), "out"),
        (("report", "--store", "s.zarr", "--out", "absent/x.html"), "out"),
    ],
)
def test_a_file_in_a_folder_that_is_not_there_is_refused_before_any_work(
    words: tuple[str, ...], setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = run_here(*words)
    assert said.status == 1
    assert f"{setting} is absent/x" in said.err
    assert "a folder that is there" in said.err


def test_many_neighbours_are_found_and_a_picture_of_the_first_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rising_or_falling(tmp_path / "s.zarr", rows=80)
    monkeypatch.setattr("flows.cli.similar.MOST_DRAWN", 5)
    said = run_here("similar", "--store", "s.zarr", "--video", "0", "--top", "3000", "--json")
    assert said.status == 0, said.err
    assert len(said.json["similar"]) == 79
    assert (tmp_path / "similar.png").stat().st_size


def test_what_is_to_be_known_of_the_splits_of_many_trainings_is_said_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = rising_or_falling_in_memory().table()
    table.loc[:9, "group"] = ""
    ways = [("grouped", ""), ("auto", ""), ("kfold", ""), ("stratified", ""), ("auto", "absent")]
    print_notes(table, (), ways)
    assert capsys.readouterr().err.splitlines() == [
        "10 of 64 clips have no group: each counts as a group of its own"
    ]


@pytest.mark.long
def test_three_thousand_neighbours_of_a_store_of_thousands_are_found_and_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rising_or_falling(tmp_path / "s.zarr", rows=5000)
    said = run_here("similar", "--store", "s.zarr", "--video", "0", "--top", "3000", "--json")
    assert said.status == 0, said.err
    assert len(said.json["similar"]) == 3000
    assert (tmp_path / "similar.png").stat().st_size
