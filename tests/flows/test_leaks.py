"""`pixels-once leaks` on clips whose border gives the label away, and where the clips are gone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import store
from tests.features.clips import write_pictures
from tests.flows.running import run_here
from tests.flows.stores import rising_or_falling

CLIPS = 24
DRAWS = False


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`s.zarr`, and its clips in `clips/`: noise in a frame of one colour for each class."""
    folder = tmp_path_factory.mktemp("leaks")
    rising_or_falling(folder / "s.zarr", rows=CLIPS)
    (folder / "clips").mkdir()
    table = store.open(folder / "s.zarr").table()
    rng = np.random.default_rng(0)
    facts = []
    for name, label in zip(table["video_id"], table["label"], strict=True):
        pictures = rng.integers(60, 200, (6, 48, 64, 3)).astype(np.uint8)
        edge = np.ones((48, 64), bool)
        edge[4:-4, 4:-4] = False
        pictures[:, edge] = (40, 120, 40) if label == "rising" else (40, 40, 120)
        path = folder / "clips" / str(name)
        write_pictures(path, pictures, codec="libx264", pix_fmt="yuv420p")
        facts.append((path.stat().st_size, path.stat().st_mtime_ns))
    sizes, times = map(np.array, zip(*facts, strict=True))
    with store.Writer.acquire(str(folder / "s.zarr"), owner="test") as writer:
        writer.set(table.index.to_numpy(), size_bytes=sizes, mtime_ns=times)
        writer.set_attributes(clips=str(folder / "clips"))
        writer.flush()
    return folder


@pytest.mark.long
def test_a_coloured_border_is_caught_recorded_and_shown_beside_the_run(work: Path) -> None:
    at, runs = ("--store", str(work / "s.zarr")), str(work / "runs")
    folds = ("--folds", "2", "--repeats", "2", "--runs", runs)
    said = run_here("leaks", *at, *folds, "--json")
    assert said.status == 0, said.err
    record = said.json
    border = next(check for check in record["checks"] if check["name"] == "border")
    assert border["clips"] == CLIPS
    assert border["top1"] == 1
    assert border["lead_interval"][0] > 0
    others = [check for check in record["checks"] if check["name"] in ("duration", "frame_rate")]
    assert not any(check["top1"] > 0.8 for check in others)
    said = run_here("train", *at, "--head", "pyramid", "--split", "kfold", *folds)
    assert said.status == 0, said.err
    expected = "without any action one frame's border strip 1.000"
    assert expected in " ".join(said.out.split())
    compared = run_here("compare", "--runs", runs)
    assert expected in " ".join(compared.out.split())
    page = work / "report.html"
    shown = run_here("report", *at, "--runs", runs, "--out", str(page))
    assert shown.status == 0, shown.err
    assert "border strip 1.000" in page.read_text(encoding="utf-8")
    # By the run's own folds: the same record again.
    again = run_here("leaks", "--run", f"{runs}/pyramid-s", "--json")
    assert again.status == 0, again.err
    assert again.json["checks"] == record["checks"]
    assert again.json["file"] == str(Path(record["file"]).resolve())


@pytest.mark.long
def test_where_the_clips_cannot_be_read_the_border_is_skipped_and_said(work: Path) -> None:
    words = ("--runs", str(work / "other"), "--videos", str(work / "nowhere"), "--folds", "2")
    said = run_here("leaks", "--store", str(work / "s.zarr"), *words)
    assert said.status == 0, said.err
    out = " ".join(said.out.split())
    assert "not checked" in out
    assert "clips cannot be listed" in out
    assert "file size" in out
