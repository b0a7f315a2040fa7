"""What a former version made opens, resumes with nothing to do, and predicts what it predicted."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import store
from pipeline.heads.saved import load_run
from tests.flows import running

pytestmark = pytest.mark.slow

FORMER = running.ROOT / "tests" / "former"
READY = {f"{name}/v_{name}_g{n:02d}_c01.mp4" for name in ("Jump", "Walk") for n in range(1, 7)}
RUNS = {
    "gru": "rising.zarr",
    "lstm": "rising.zarr",
    "folds": "rising.zarr",
    "pixels": "frames.zarr",
}


@pytest.fixture(params=["0.1.0"])
def former(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The folder as that version left it."""
    with tarfile.open(FORMER / f"{request.param}.tar.xz") as file:
        file.extractall(tmp_path, filter="data")
    return tmp_path / "former"


def contents(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_its_table_reads_as_it_was_written(former: Path) -> None:
    table = store.open(str(former / "frames.zarr")).table().set_index("video_id")
    assert set(table.index[table["status"] == store.READY]) == READY
    assert dict(table["reason"][table["reason"] != ""]) == {
        "Jump/text.mp4": "unreadable",
        "Walk/v_Walk_g07_c01.avi": "unreadable",
    }
    assert table.loc["Walk/v_Walk_g06_c01.mp4", "frames_decoded"] == 16


@pytest.mark.parametrize("times", ["its own", "a copy's"])
def test_its_store_has_nothing_to_do(former: Path, times: str, prefect_api: str) -> None:
    clips, url = former / "clips", former / "frames.zarr"
    table = store.open(str(url)).table()
    if times == "its own":
        for video_id, time in zip(table["video_id"], table["mtime_ns"], strict=True):
            os.utime(clips / video_id, ns=(int(time), int(time)))
    before = contents(url / "features")
    done = running.run_here(
        "features", "--videos", str(clips), "--store", str(url), "--frames", "4", "--json"
    )
    assert done.status == 0, done.err
    assert (done.json["outcome"], done.json["planned"]) == ("nothing to do", 0)
    assert contents(url / "features") == before
    columns = ["video_id", "status", "reason", "label", "group", "sha256", "frames_decoded"]
    now = store.open(str(url)).table()
    pd.testing.assert_frame_equal(now[columns], table[columns])


def test_its_clips_are_read_as_they_were(former: Path, prefect_api: str) -> None:
    where = ("--videos", str(former / "clips"), "--store", str(former / "frames.zarr"))
    done = running.run_here("verify", "--sample", "12", *where, "--json")
    assert done.status == 0, done.err
    assert (done.json["sample"]["checked"], done.json["sample"]["different"]) == (12, 0)


@pytest.mark.parametrize("name", RUNS)
def test_its_runs_predict_what_they_predicted(former: Path, name: str) -> None:
    run, source = load_run(former / "runs" / name), store.open(str(former / RUNS[name]))
    run.require_same_spec(source)
    assert run.moved_on(source) == []
    folder = run.folder
    if name == "folds":  # its own head was trained on all clips, and predicted none of them
        folder = folder / "folds" / "00"
        shutil.copy(run.folder / "config.json", folder)
        run = load_run(folder)
    then = pd.read_csv(folder / "predictions.csv")
    loaded = source.load(then["row"].to_numpy())
    probabilities = then[[f"p:{label}" for label in run.classes]].to_numpy()
    np.testing.assert_allclose(run.predict(loaded.features, loaded.mask), probabilities, atol=1e-5)


@pytest.mark.long
def test_its_runs_answer_the_commands(former: Path, prefect_api: str, tmp_path: Path) -> None:
    run, clips = str(former / "runs/pixels"), str(former / "clips/Walk")
    predicted = running.run_here("predict", "--run", run, "--video", clips, "--json")
    assert predicted.status == 0, predicted.err
    then = pd.read_csv(former / "runs/pixels/predictions.csv").set_index("video_id")
    now = {record["clip"]: record for record in predicted.json["predictions"]}
    top = {label["label"]: label["probability"] for label in now["v_Walk_g04_c01.mp4"]["top"]}
    assert top["Walk"] == pytest.approx(then.loc["Walk/v_Walk_g04_c01.mp4", "p:Walk"], abs=1e-5)
    assert now["v_Walk_g07_c01.avi"]["reason"] == "unreadable"

    compared = running.run_here("compare", "--runs", str(former / "runs"), "--json")
    assert compared.status == 0, compared.err
    found = [line["run"] for board in compared.json["boards"] for line in board["runs"]]
    assert sorted(found) == sorted(RUNS)

    page = tmp_path / "report.html"
    words = ("--store", str(former / "frames.zarr"), "--runs", str(former / "runs"))
    reported = running.run_here("report", *words, "--out", str(page))
    assert reported.status == 0, reported.err
    assert "pixels" in page.read_text(encoding="utf-8")
