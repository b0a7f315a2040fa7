"""A look at clips before extraction: what is readable, what is twice there, what it will cost."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from flows.cli import scan as command
from flows.data.scan import scan, summarise
from pipeline.errors import ConfigError
from pipeline.features.catalog import discover
from tests.flows.running import CLIPS


def test_counts_codecs_and_durations_are_those_of_the_clips(clips: Path) -> None:
    found = summarise(scan(discover(str(clips))), frames=40, rate=10)
    assert (found["clips"], found["readable"], found["groups"]) == (12, 12, 3)
    assert found["codecs"] == {"h264": 12}
    assert found["classes"] == {"Jump": 6, "Walk": 6}
    assert found["frames"] == {"least": 10, "median": 15.5, "most": 21}
    assert found["duration_s"]["most"] == pytest.approx(21 / 25, abs=0.01)
    assert found["shorter_than_steps"] == 12
    assert found["expected_seconds"] == round(sum(range(10, 22)) / 10)


def test_copies_are_found_by_content_whatever_their_names(clips: Path, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    shutil.copytree(clips, folder)
    first = sorted(folder.rglob("*.mp4"))[0]
    shutil.copy(first, folder / "Walk" / "copy.mp4")
    found = summarise(scan(discover(str(folder))), frames=40, rate=0)
    assert found["duplicates"] == [[f"Jump/{first.name}", "Walk/copy.mp4"]]
    assert found["expected_seconds"] is None


def test_what_cannot_be_read_has_its_reason(clips: Path, tmp_path: Path) -> None:
    folder = tmp_path / "c" / "Walk"
    folder.mkdir(parents=True)
    shutil.copy(sorted(clips.rglob("*.mp4"))[0], folder / "good.mp4")
    (folder / "text.mp4").write_text("no video")
    (folder / "empty.mp4").touch()
    found = summarise(scan(discover(str(tmp_path / "c"))), frames=40, rate=0)
    assert {b["video_id"]: b["reason"] for b in found["unreadable"]} == {
        "Walk/text.mp4": "unreadable",
        "Walk/empty.mp4": "unreadable",
    }


def test_the_command_prints_json_and_writes_one_line_per_clip(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "clips.csv"
    assert command.run(command.Settings(videos=str(clips), csv=str(out), rate=50), json=True) == 0
    assert json.loads(capsys.readouterr().out)["readable"] == 12
    with out.open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 12
    assert lines[0]["codec"] == "h264"


def test_it_ends_with_the_next_step(clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command.run(command.Settings(videos=str(clips), rate=50), json=False)
    assert f"next: pixels-once features --videos {clips}" in capsys.readouterr().out


def test_no_clips_named_is_one_sentence() -> None:
    with pytest.raises(ConfigError, match="scan needs --videos"):
        command.run(command.Settings(), json=False)


@pytest.mark.skipif(not CLIPS.is_dir(), reason="the real clips are not here")
def test_strange_real_files_neither_end_nor_stop_the_scan() -> None:
    found = summarise(scan(discover(str(CLIPS / "odd"))), frames=40, rate=0)
    assert found["clips"] == 22
    assert found["readable"] >= 14
