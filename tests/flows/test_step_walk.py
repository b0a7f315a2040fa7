"""From long videos and annotations to a timeline, by the commands."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

from pipeline.features.demo import render_clip, write_clip
from pipeline.heads.saved import load_run
from tests.flows.running import run_here

ACTIONS = ("Opening", "Closing", "Dawn", "Dusk")


def stitch(path: Path, number: int) -> list[tuple[float, float, str]]:
    """Six demo clips end to end; returns what happens when."""
    rng = np.random.default_rng([5, number])
    frames, spans = [], []
    for clip in range(6):
        action = str(rng.choice(ACTIONS))
        frames.append(render_clip(action, group=number + 1, clip=clip))
        start = sum(map(len, frames[:-1])) / 12
        spans.append((start, start + len(frames[-1]) / 12, action))
    write_clip(path, np.concatenate(frames))
    return spans


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_users_walk_from_long_videos_and_annotations_to_a_timeline(
    prefect_api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("videos").mkdir()
    lines = ["path,start,end,label"]
    for number in range(8):
        spans = stitch(Path(f"videos/{number}.mp4"), number)
        lines += [f"{number}.mp4,{start:.3f},{end:.3f},{label}" for start, end, label in spans[:-1]]
    Path("a.csv").write_text("\n".join(lines) + "\n")
    words = ("--backbone", "motion", "--sampling", "fps=6", "--frames", "16", "--long", "split")
    done = run_here("features", "--videos", "videos", "--store", "v.zarr", *words)
    assert done.status == 0, done.err
    assert "clips are parts of 8 files" in done.out
    # The rows have no labels: only annotations can be trained on.
    hint = "next: pixels-once train --store v.zarr --head segmenter --annotations FILE"
    assert hint in done.out
    train = ("train", "--store", "v.zarr", "--runs", "runs", "--epochs", "12")
    without = run_here(*train, "--head", "segmenter")
    assert without.status == 1
    assert "add --annotations FILE" in without.err
    clip_head = run_here(*train, "--head", "gru", "--annotations", "a.csv")
    assert clip_head.status == 1
    assert "use segmenter, mstcn" in clip_head.err
    done = run_here(
        *train, "--head", "segmenter", "--annotations", "a.csv", "--name", "seg", "--json"
    )
    assert done.status == 0, done.err
    assert done.json["test"]["videos"] == 1
    assert done.json["test"]["frame_accuracy"] > done.json["baseline"]["majority"]
    # A video that no training saw.
    stitch(Path("new.mp4"), 8)
    ask = ("predict", "--run", "runs/seg", "--video", "new.mp4")
    plain = run_here(*ask)
    assert plain.status == 1
    assert "add --timeline" in plain.err
    sliding = run_here(*ask, "--timeline", "--window", "2")
    assert sliding.status == 1
    assert "window is for heads that slide" in sliding.err
    said = run_here(*ask, "--timeline", "--out", "out", "--json")
    assert said.status == 0, said.err
    names = {path.name for path in Path("out").iterdir()}
    assert names == {
        *("timeline.csv", "segments.csv", "timeline.srt", "timeline.vtt", "results.json"),
        *("overlay.mp4", "timeline.gif"),
    }
    with Path("out/timeline.csv").open(newline="") as file:
        steps = list(csv.DictReader(file))
    assert len(steps) == said.json["windows"] == said.json["frames"]
    assert list(steps[0])[1:] == load_run(Path("runs/seg")).classes
    segments = said.json["segments"]
    assert segments
    cues = re.findall(r"-->", Path("out/timeline.srt").read_text())
    results = json.loads(Path("out/results.json").read_text())["results"]["new"]
    assert len(segments) == len(cues) == len(results)
    shown = run_here(*ask, "--timeline", "--out", "out")
    assert shown.status == 0, shown.err
    assert "more in out/segments.csv" not in shown.out
    compared = run_here("compare", "--runs", "runs")
    assert compared.status == 0, compared.err
    assert "1 test video ·" in compared.out
    assert "F1@50" in compared.out
    report = run_here("report", "--store", "v.zarr", "--runs", "runs", "--out", "r.html")
    assert report.status == 0, report.err
    assert "Strips of time" in Path("r.html").read_text()
