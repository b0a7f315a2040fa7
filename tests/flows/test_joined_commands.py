"""`--store a.zarr+b.zarr` from the command line: which stores are meant; train, predict, compare."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import store
from flows.extract.request import stage_of
from flows.settings.features import FeaturesSettings
from flows.train.opening import open_source, require_one_store, split_streams, store_name
from flows.train.shared import load_stores
from pipeline.errors import ConfigError, SpecMismatch
from pipeline.features.extraction import ClipSource
from pipeline.features.joined_stage import load_stored_streams
from pipeline.features.sequences import ClipResult
from pipeline.features.stage import FirstStage, Stage
from pipeline.heads.saved import load_run
from pipeline.predict.prediction import joined_result
from pipeline.spec import Spec
from tests.flows.running import run_here
from tests.flows.stores import rising_or_falling


def write_store(url: Path, stage: Stage, ids: list[str], results: list[ClipResult]) -> None:
    """A store of these clips in this order, as `features` leaves it."""
    spec = Spec.from_dict(stage.spec)
    layout = store.Layout(steps=spec.sampling.steps, shape=spec.shape, batch=64)
    store.create(
        str(url), layout=layout, spec=spec.to_dict(), fingerprint=spec.fingerprint, software={}
    )
    table = pd.DataFrame(
        {
            "video_id": ids,
            "label": [name.split("/")[0] for name in ids],
            "group": [name.split("_")[2] for name in ids],
            "sha256": [result.sha256 for result in results],
            "fps": [result.fps for result in results],
            "frames_decoded": [result.frames_decoded for result in results],
        }
    )
    rows = np.arange(len(ids))
    with store.Writer.acquire(str(url), owner="test") as writer:
        writer.append(table)
        features = np.stack([result.features for result in results])
        writer.set(rows, digest=store.write_batch(str(url), 0, features, token=writer.token))
        steps = ("mask", "frame_index", "timestamp")
        writer.put_steps(rows, *(np.stack([getattr(r, name) for r in results]) for name in steps))
        writer.mark(rows, store.READY)
        writer.set_attributes(first_stage={"weights": stage.weights})
        writer.flush()


@pytest.fixture(scope="module")
def folder(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Motion of 6 steps, and its mirrored view of 4 in another order and without one clip; and a run."""
    folder = tmp_path_factory.mktemp("joined")
    shutil.copytree(clips, folder / "clips")
    ids = sorted(path.relative_to(clips).as_posix() for path in clips.rglob("*.mp4"))
    for name, order, more in (
        ("a", ids, {"frames": 6}),
        ("b", ids[::-1][:-1], {"frames": 4, "view": "mirror"}),
    ):
        asked = FeaturesSettings(videos="clips", backbone="motion", **more)  # type: ignore[arg-type]
        _, stage, _ = stage_of(asked, None)
        with FirstStage.load(stage, threads=2) as first:
            results = first.extractor.extract([ClipSource(str(clips / each)) for each in order])
        write_store(folder / f"{name}.zarr", stage, order, results)
    before = Path.cwd()
    os.chdir(folder)
    try:
        words = ("--head", "pyramid", "--split", "grouped", "--json")
        done = run_here("train", "--store", "a.zarr+b.zarr", *words)
        assert done.status == 0, done.err
        (folder / "said.txt").write_text(done.err)
        alone = run_here("train", "--store", "a.zarr", *words)
        assert alone.status == 0, alone.err
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.long
def test_a_training_says_what_it_leaves_out_and_what_it_joins_by_time(folder: Path) -> None:
    said = (folder / "said.txt").read_text()
    assert "1 clips are not ready in every stream and are left out (such as Jump/" in said
    assert "11 of 11 clips of motion 2 show other frames than those of motion 1" in said
    config = json.loads((folder / "runs" / "pyramid-a+b" / "config.json").read_text())
    assert config["store"]["url"] == f"{folder}/a.zarr+{folder}/b.zarr"
    assert config["left_out"] == {"not_in_every_stream": 1}
    assert [each["spec"]["view"] for each in config["streams"]] == ["plain", "mirror"]


@pytest.mark.long
def test_predict_reads_every_stream_of_one_decoding_equal_to_the_stores_rows(here: Path) -> None:
    run = load_run(here / "runs" / "pyramid-a+b")
    source = open_source("a.zarr+b.zarr")
    table = source.table()
    table = table[table["status"] == store.READY]
    read = source.load(table.index)
    streams = [(stream.spec, stream.first_stage) for stream in run.streams]
    stage, notes = load_stored_streams(streams, owner="the run")
    assert notes == []
    with stage:
        results = stage.extract([ClipSource(str(here / "clips" / v)) for v in table["video_id"]])
    for number, name in enumerate(("a.zarr", "b.zarr")):
        own = store.open(name)
        rows = own.table().reset_index().set_index("video_id").loc[table["video_id"], "row"]
        kept = own.load(rows.to_numpy())
        for stored, each in zip(kept.features, results, strict=True):
            np.testing.assert_array_equal(each[number].features, stored)
    joined = [joined_result(run.streams, each) for each in results]
    np.testing.assert_array_equal(np.stack([each.features for each in joined]), read.features)
    np.testing.assert_array_equal(np.stack([each.mask for each in joined]), read.mask)
    said = run_here("predict", "--run", "runs/pyramid-a+b", "--video", "clips", "--json")
    assert said.status == 0, said.err
    assert said.err.count("has moved on") == 0
    probabilities = dict(zip(table["video_id"], run.predict(read.features, read.mask), strict=True))
    assert len(said.json["predictions"]) == 12
    for line in said.json["predictions"]:
        if line["clip"] in probabilities:
            best = line["top"][0]["probability"]
            assert best == pytest.approx(float(probabilities[line["clip"]].max()), abs=1e-5)


def test_compare_and_report_know_a_joined_run_and_what_it_joins(here: Path) -> None:
    said = run_here("compare", "--runs", "runs", "--json")
    assert said.status == 0, said.err
    features = {
        run["run"]: run["features"] for board in said.json["boards"] for run in board["runs"]
    }
    assert features == {"pyramid-a+b": "motion 1+motion 2", "pyramid-a": "motion"}
    shown = run_here("report", "--store", "b.zarr", "--runs", "runs", "--json")
    assert shown.status == 0, shown.err
    assert "pyramid-a+b" in shown.json["runs"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("report", "--store", "a.zarr+b.zarr"), "name one of them, and runs that join it"),
        (("train", "--store", "a.zarr+a.zarr"), "holds the same features as"),
        (("train", "--store", "a.zarr+"), "name a store on each side of a +"),
        (("train", "--store", "a.zarr+none.zarr"), "no feature store at none.zarr, one of those that"),
        (("train", "--store", "a.zarr+b.zarr,b.zarr"), "with views (,) of joined streams (+)"),
        (("train", "--store", "a.zarr", "--join", "early"), "the clips are of one store"),
        (("train", "--store", "a.zarr+b.zarr", "--skeleton", "yes"), "is a store of backbone pose"),
        (
            ("predict", "--run", "runs/pyramid-a+b", "--video", "clips", "--timeline"),
            "--timeline reads one stream, and runs/pyramid-a+b joins 2",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_in_one_sentence(
    here: Path, words: tuple[str, ...], says: str
) -> None:
    said = run_here(*words)
    assert said.status == 1
    assert says in said.err
    assert "Traceback" not in said.err


def test_a_store_that_has_moved_on_is_said_and_its_changed_clip_is_left_out(here: Path) -> None:
    shutil.copytree("b.zarr", "moved.zarr")
    shutil.copytree("runs/pyramid-a+b", "runs/moved")
    config = json.loads(Path("runs/moved/config.json").read_text())
    config["store"]["url"] = f"{here}/a.zarr+{here}/moved.zarr"
    Path("runs/moved/config.json").write_text(json.dumps(config))
    with store.Writer.acquire("moved.zarr", owner="test") as writer:
        features = store.read_batch("moved.zarr", 0)
        features[3] += 1
        digests = store.write_batch("moved.zarr", 0, features, token=writer.token)
        writer.set(np.arange(len(digests)), digest=digests)
        writer.set([5], sha256=["f" * 64])
        writer.flush()
    clip = str(here / "clips" / store.open("moved.zarr").table().loc[0, "video_id"])
    said = run_here("predict", "--run", "runs/moved", "--video", clip, "--json")
    assert said.status == 0, said.err
    assert "has moved on" in said.err
    assert "1 clip has other features" in said.err
    loaded = load_stores("a.zarr+moved.zarr")
    assert loaded.clips.left_out == {"not_in_every_stream": 1, "other_bytes": 1}
    shutil.rmtree("runs/moved")


def test_a_store_that_changes_between_the_plan_and_the_reading_gives_no_row_of_the_new_version(
    here: Path,
) -> None:
    shutil.copytree("b.zarr", "later.zarr")
    source = open_source("a.zarr+later.zarr", frozen=True)
    with store.Writer.acquire("later.zarr", owner="test") as writer:
        features = store.read_batch("later.zarr", 0)
        features[3] += 1
        digests = store.write_batch("later.zarr", 0, features, token=writer.token)
        writer.set(np.arange(len(digests)), digest=digests)
        writer.flush()
    changed = store.open("later.zarr").table().loc[3, "video_id"]
    table = source.table()
    rows = table.index[table["status"] == store.READY]
    with pytest.warns(store.StoreWarning, match="left out"):
        read = source.load(rows)
    assert set(rows) - set(read.rows) == set(table.index[table["video_id"] == changed])


def test_the_longest_names_that_exist_are_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, view in (("a", "plain"), ("b+c", "mirror"), ("a+b", "plain"), ("d", "mirror")):
        rising_or_falling(tmp_path / name, rows=24, view=view)
    assert split_streams("a+b+c") == ["a", "b+c"]
    assert split_streams("a+b") == ["a+b"]
    assert split_streams(" a + d ") == ["a", "d"]
    assert split_streams("a+b+d") == ["a+b", "d"]
    assert split_streams("s3://bucket/none") == ["s3://bucket/none"]
    assert store_name("a+d") == "a+d"
    assert open_source("a+b").fingerprint == store.open("a+b").fingerprint
    loaded = load_stores("a+d")
    assert loaded.clips.source.url == f"{tmp_path}/a+{tmp_path}/d"  # type: ignore[attr-defined]
    assert loaded.clips.shape == (8,)
    with pytest.raises(store.StoreNotFound, match="no feature store at nothing"):
        split_streams("a+nothing")
    with pytest.raises(SpecMismatch, match="holds the same features"):
        load_stores("a+b+a")
    require_one_store("a+b", "x")
    require_one_store("new+store.zarr", "x")
    with pytest.raises(ConfigError, match="one is needed: name one"):
        require_one_store("a+none", "name one")
