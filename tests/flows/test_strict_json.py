"""What a command prints with --json is JSON to every parser, NaN or not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import store
from flows.cli import COMMANDS
from flows.cli.terminal import print_json
from tests.flows.running import Finished, run_here
from tests.flows.stores import rising_or_falling


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store whose clips all have groups of their own kind, and one run of it."""
    folder = tmp_path_factory.mktemp("json")
    rising_or_falling(folder / "s.zarr")
    words = ("--head", "mlp", "--units", "4,4", "--epochs", "1", "--runs", str(folder / "runs"))
    said = run_here("train", "--store", str(folder / "s.zarr"), *words, "--json")
    assert said.status == 0, said.err
    assert only_object(said)["test"]["clips"] > 0
    first = store.open(folder / "s.zarr").table()["video_id"].iloc[0]
    (folder / "labels.csv").write_text(f"id,label\n{first},another\n", encoding="utf-8")
    (folder / "arrays").mkdir()
    np.save(folder / "arrays" / "a.npy", np.ones((3, 4), np.float32))
    packed = run_here(
        "pack", "--store", str(folder / "s.zarr"), "--out", str(folder / "packed.zip"), "--json"
    )
    assert only_object(packed)["bytes"] > 0, packed.err
    # One group for all: likeness among clips of other groups is not a number.
    with store.Writer.acquire(str(folder / "s.zarr"), owner="test") as writer:
        table = store.open(folder / "s.zarr").table()
        writer.set(table.index.to_numpy(), group=pd.Series("g", index=table.index).to_numpy())
        writer.flush()
    return folder


QUICK = [
    ("heads",),
    ("backbones",),
    ("show", "--store", "s.zarr"),
    ("verify", "--store", "s.zarr"),
    ("similar", "--store", "s.zarr", "--video", "0", "--out", ""),
    ("similar", "--store", "s.zarr"),
    ("compare", "--runs", "runs"),
    ("leaks", "--store", "s.zarr", "--split", "stratified", "--no-border"),
    ("report", "--store", "s.zarr", "--runs", "runs"),
    ("forget", "--store", "s.zarr", "--clips", "clip-000*", "--dry-run"),
    ("freeze", "--store", "s.zarr"),
    ("dataset",),
    ("unpack", "--store", "packed.zip", "--out", "unpacked"),
    ("relabel", "--store", "s.zarr", "--labels", "labels.csv", "--dry-run"),
    ("import", "--from", "arrays", "--store", "imported.zarr"),
]
LONG = [
    ("doctor",),
    ("scan", "--videos", "clips"),
    ("export", "--run", "runs/mlp-s"),
    ("sweep", "--store", "s.zarr", "--heads", "mlp:units=4,second_units=4", "--epochs", "1"),
    ("search", "--store", "s.zarr", "--heads", "pyramid", "--trials", "1"),
]
ELSEWHERE = {
    **dict.fromkeys(("train", "pack"), "the fixture `work`"),
    "demo": "test_the_demo_prints_one_object",
    **dict.fromkeys(("features", "predict", "refresh"), "test_from_clips_to_a_refresh"),
    **dict.fromkeys(("ui", "serve"), "tests/flows/test_serve.py reads their line"),
}


def only_object(said: Finished) -> dict[str, Any]:
    """What a command printed: one line, of JSON."""
    assert len(said.out.splitlines()) == 1, said.out
    return said.json


@pytest.mark.parametrize(
    "words",
    [*QUICK, *(pytest.param(words, marks=pytest.mark.long) for words in LONG)],
    ids=" ".join,
)
def test_json_of_a_command_is_json(
    words: tuple[str, ...], work: Path, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(work)
    if words[0] == "scan":
        words = ("scan", "--videos", str(clips))
    said = run_here(*words, "--json")
    assert said.status in (0, 1, 4) if words[0] == "doctor" else said.status == 0, said.err
    assert only_object(said)
    if words == ("similar", "--store", "s.zarr"):
        assert said.json["other_groups"]["same_class"] is None


def test_no_command_is_forgotten() -> None:
    """A new command stands in one of the lists above, or says where its JSON is read strictly."""
    assert {words[0] for words in (*QUICK, *LONG)} | set(ELSEWHERE) == set(COMMANDS)


def test_the_demo_prints_one_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.cli import demo

    def step(name: str, status: int) -> Any:
        def run(settings: Any, *, json: bool) -> int:
            assert json
            print_json({"of": name, "value": float("nan")})
            return status

        return run

    for name in ("features", "train", "predict"):
        monkeypatch.setattr(getattr(demo, f"{name}_command"), "run", step(name, 0))
    (tmp_path / "demo-lstm").mkdir()
    config = {"split": {"test": {"video_ids": ["clip.mp4"]}}}
    (tmp_path / "demo-lstm" / "config.json").write_text(json.dumps(config))
    said = run_here("demo", "--json", "--runs", str(tmp_path))
    assert said.status == 0, said.err
    assert list(only_object(said)) == ["features", "train", "predict"]
    assert said.json["predict"] == {"of": "predict", "value": None}
    monkeypatch.setattr(demo.train_command, "run", step("train", 130))
    said = run_here("demo", "--json", "--runs", str(tmp_path))
    assert said.status == 130
    assert list(only_object(said)) == ["features", "train"]


REFRESH = """
[refresh]
videos = "clips"
store = "f.zarr"
heads = "early_fusion"
[refresh.features]
backbone = "frames"
frames = 4
[refresh.train]
epochs = 1
split = "stratified"
"""


@pytest.mark.long
@pytest.mark.timeout(900)
def test_from_clips_to_a_refresh(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(clips, tmp_path / "clips")
    (tmp_path / "refresh.toml").write_text(REFRESH, encoding="utf-8")
    extract = ("features", "--videos", "clips", "--store", "f.zarr", "--backbone", "frames")
    dry = run_here(*extract, "--frames", "4", "--dry-run", "--json")
    assert dry.status == 0, dry.err
    for words in (
        (*extract, "--frames", "4"),
        (*extract, "--frames", "4"),  # nothing to do
        ("refresh", "--config", "refresh.toml"),
        ("refresh", "--config", "refresh.toml"),  # unchanged
        ("predict", "--run", "runs/accepted", "--video", "clips"),
        ("predict", "--run", "runs/accepted", "--video", "clips/Jump/v_Jump_g01_c01.mp4",
         "--timeline", "--out", "timeline"),
    ):  # fmt: skip
        said = run_here(*words, "--json")
        assert said.status == 0, said.err
        assert only_object(said)
