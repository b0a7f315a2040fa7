"""Prediction on anything: a clip, a folder, a URL, and a long video."""

from __future__ import annotations

import csv
import functools
import http.server
import importlib.util
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from benchmarks.timeline import overlap
from flows.data.downloads import fetch_clip, is_url
from pipeline.errors import ConfigError
from pipeline.predict.timeline import Segment
from tests.flows.running import run_here

pytestmark = pytest.mark.timeout(600)

COLOURS = {"Blue": (30, 40, 220), "Red": (220, 40, 30)}

needs_web = pytest.mark.skipif(
    importlib.util.find_spec("yt_dlp") is None, reason="yt-dlp (extra web) is not installed"
)


def write_video(path: Path, stretches: list[tuple[str, float]]) -> Path:
    """Stretches of (colour, seconds) one after the other, 10 frames a second, a little noisy."""
    rng = np.random.default_rng(len(stretches))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for label, seconds in stretches:
            for _ in range(round(seconds * 10)):
                noise = rng.normal(0, 12, (64, 96, 3))
                picture = (np.array(COLOURS[label]) + noise).clip(0, 255).astype(np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def trained(prefect_api: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with clips of two colours and a head that tells them apart by their pixels."""
    folder = tmp_path_factory.mktemp("predict")
    store, runs = ("--store", str(folder / "s.zarr")), ("--runs", str(folder / "runs"))
    for label in COLOURS:
        (folder / "clips" / label).mkdir(parents=True)
        for group in range(1, 7):
            name = f"v_{label}_g{group:02d}_c01.mp4"
            write_video(folder / "clips" / label / name, [(label, 1.5 + group / 10)])
    words = ("--backbone", "frames", "--frames", "8", "--fit", "squash")
    made = run_here("features", "--videos", str(folder / "clips"), *store, *words)
    assert made.status == 0, made.err
    words = ("--head", "early_fusion", "--epochs", "8", "--lr", "0.003", "--name", "colours")
    done = run_here("train", *store, *runs, *words, "--json")
    assert done.status == 0, done.err
    assert done.json["test"]["top1"] == 1.0
    return folder


@pytest.fixture
def here(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the head, which the commands are run in."""
    monkeypatch.chdir(trained)
    return trained


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a web server that serves a folder with one clip, on this machine only."""
    write_video(tmp_path / "red clip.mp4", [("Red", 2)])
    handler = functools.partial(_Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        thread = threading.Thread(target=served.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *words: object) -> None: ...


@pytest.mark.long
def test_a_part_of_a_file_is_predicted_like_a_clip(here: Path, tmp_path: Path) -> None:
    both = write_video(tmp_path / "both #1.mp4", [("Blue", 2), ("Red", 2)])
    for part, label in (("t=0,2", "Blue"), ("t=0:02,4", "Red"), ("frames=21,39", "Red")):
        words = ("--run", "runs/colours", "--video", f"{both}#{part}", "--json")
        done = run_here("predict", *words)
        assert done.status == 0, done.err
        (found,) = done.json["predictions"]
        assert found["top"][0]["label"] == label, part
        assert found["clip"].startswith("both #1.mp4#")
    beyond = run_here("predict", "--run", "runs/colours", "--video", f"{both}#t=8,9", "--json")
    assert beyond.status == 1
    assert beyond.json["predictions"][0]["reason"] == "empty_segment"


@pytest.mark.long
def test_parts_of_files_train_a_head_that_is_tested_on_other_files(
    prefect_api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = ["path,label,start,end"]
    for number in range(8):
        stretches = [("Blue", 1.2), ("Red", 1.0), ("Blue", 0.8 + number / 10), ("Red", 1.5)]
        write_video(tmp_path / f"{number}.mp4", stretches)
        at = 0.0
        for label, seconds in stretches:
            lines.append(f"{number}.mp4,{label},{at:.1f},{at + seconds:.1f}")
            at += seconds
    (tmp_path / "parts.csv").write_text("\n".join(lines), encoding="utf-8")
    words = ("--backbone", "frames", "--frames", "8", "--fit", "squash", "--store", "p.zarr")
    made = run_here("features", "--videos", "parts.csv", *words)
    assert made.status == 0, made.err
    words = ("--head", "early_fusion", "--epochs", "8", "--lr", "0.003", "--name", "parts")
    done = run_here("train", "--store", "p.zarr", *words, "--json")
    assert done.status == 0, done.err
    assert done.json["test"]["top1"] == 1.0
    with (tmp_path / "runs/parts/clips.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["span"] for row in rows if row["video_id"].startswith("0.mp4")} == {
        "t=0,1.2", "t=1.2,2.2", "t=2.2,3", "t=3,4.5"
    }  # fmt: skip
    part_of = {(row["group"], row["part"]) for row in rows}
    assert len(part_of) == len({group for group, _ in part_of}) == 8
    report = run_here("report", "--store", "p.zarr", "--out", "report.html")
    assert report.status == 0, report.err
    assert "0.mp4#t=0,1.2" in (tmp_path / "report.html").read_text(encoding="utf-8")
    similar = run_here("similar", "--store", "p.zarr", "--video", "0.mp4#t=0,1.2", "--json")
    assert similar.status == 0, similar.err
    new = write_video(tmp_path / "new.mp4", [("Red", 1), ("Blue", 1)])
    similar = run_here("similar", "--store", "p.zarr", "--video", f"{new}#t=0,1", "--json")
    assert similar.status == 0, similar.err
    assert similar.json["similar"][0]["label"] == "Red"


@needs_web
def test_a_url_is_fetched_to_a_file(server: str, tmp_path: Path) -> None:
    (tmp_path / "in 100% here").mkdir()
    path = fetch_clip(f"{server}/red%20clip.mp4", tmp_path / "in 100% here")
    assert path.parent == tmp_path / "in 100% here"
    assert path.read_bytes() == (tmp_path / "red clip.mp4").read_bytes()


@needs_web
@pytest.mark.parametrize("page", ["nothing.mp4", ""])
def test_a_url_without_a_video_is_one_sentence(server: str, page: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        fetch_clip(f"{server}/{page}", tmp_path)
    assert "\n" not in str(caught.value)
    assert server in str(caught.value)


def test_what_is_a_url_and_what_is_a_file() -> None:
    assert is_url("https://example.org/clip.mp4")
    assert not is_url("clips/https.mp4")


@needs_web
@pytest.mark.slow
def test_a_clip_from_the_web_is_predicted(here: Path, server: str) -> None:
    url = f"{server}/red%20clip.mp4"
    said = run_here("predict", "--run", "runs/colours", "--video", url, "--json")
    assert said.status == 0, said.err
    (one,) = said.json["predictions"]
    assert one["top"][0]["label"] == "Red"


@pytest.mark.slow
def test_a_folder_is_predicted_as_json_and_csv(here: Path) -> None:
    words = ("--run", "runs/colours", "--video", "clips", "--csv", "out.csv", "--top", "1")
    said = run_here("predict", *words, "--json")
    assert said.status == 0, said.err
    found = said.json["predictions"]
    assert len(found) == 12
    assert all(one["clip"].startswith(one["top"][0]["label"]) for one in found)
    with (here / "out.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["label"] for line in lines] == [one["top"][0]["label"] for one in found]


@pytest.mark.long
def test_a_timeline_finds_the_stretches_of_a_long_video(here: Path, tmp_path: Path) -> None:
    stretches = [("Red", 12.0), ("Blue", 7.0), ("Red", 16.0), ("Blue", 10.0)]
    video = write_video(tmp_path / "long.mp4", stretches)
    words = ("--run", "runs/colours", "--video", str(video), "--timeline", "--out", "long")
    said = run_here("predict", *words, "--json")
    assert said.status == 0, said.err
    true, start = [], 0.0
    for label, seconds in stretches:
        true.append(Segment(start_s=start, end_s=start + seconds, label=label, probability=1))
        start += seconds
    found = [Segment(**part) for part in said.json["segments"]]
    assert min(overlap(found, true).values()) > 0.9
    # The window is as long as the training's clips, and said nowhere again.
    config = json.loads((here / "runs" / "colours" / "config.json").read_text())
    assert said.json["window_s"] == pytest.approx(config["first_stage"]["clip_seconds"], abs=0.1)
    with av.open(str(here / "long" / "overlay.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 450
    with Image.open(here / "long" / "timeline.gif") as gif:
        assert gif.n_frames > 20  # type: ignore[attr-defined]
    assert len((here / "long" / "segments.csv").read_text().splitlines()) == len(found) + 1


@pytest.mark.slow
def test_a_timeline_wants_one_video(here: Path) -> None:
    words = ("--run", "runs/colours", "--video", "clips", "--timeline")
    said = run_here("predict", *words)
    assert said.status == 1
    assert "--timeline takes one video" in said.err
