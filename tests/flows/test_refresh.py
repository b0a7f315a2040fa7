"""`refresh`: clips are added, heads are retrained, the better one is accepted and the worse refused."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest

import store
from flows.train import promotion
from pipeline.errors import ConfigError
from tests.features.clips import write_numbered_clip
from tests.flows.running import Finished, finish, run, run_here, start
from tests.waiting import wait_until

CONFIG = """
[refresh]
videos = "clips"
store = "s.zarr"
weights = "random:3"
heads = "gru"
[refresh.features]
backbone = "mobilenet"
frames = 4
engine = "keras"
[refresh.train]
epochs = 2
split = "grouped"
[refresh.head.gru]
units = "8"
"""


def refresh(cwd: Path, *words: str) -> Finished:
    return run("refresh", "--config", "refresh.toml", "--json", *words, cwd=cwd, timeout_s=600)


def add(folder: Path, group: int) -> None:
    for label in ("Jump", "Walk"):
        write_numbered_clip(folder / label / f"v_{label}_g{group:02d}_c01.mp4", frames=12 + group)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_new_clips_are_extracted_and_the_new_head_promoted_or_refused(
    clips: Path, tmp_path: Path
) -> None:
    shutil.copytree(clips, tmp_path / "clips")
    (tmp_path / "refresh.toml").write_text(CONFIG, encoding="utf-8")
    first = refresh(tmp_path)
    assert first.status == 0, first.err
    assert first.json["outcome"] == "promoted"
    pointer = tmp_path / "runs" / "accepted"
    began_with = pointer.resolve().name
    assert began_with == first.json["run"]
    assert refresh(tmp_path).json["outcome"] == "unchanged"

    add(tmp_path / "clips", 4)
    second = refresh(tmp_path, "--threshold", "1")
    assert second.status == 0, second.err
    assert (second.json["outcome"], second.json["extracted"]) == ("promoted", 2)
    assert second.json["accepted"] == began_with
    assert pointer.resolve().name == second.json["run"] != began_with
    tested = [
        set(
            json.loads((tmp_path / "runs" / name / "config.json").read_text())["split"][part][
                "video_ids"
            ]
        )
        for name, part in ((began_with, "test"), (second.json["run"], "train"))
    ]
    assert not tested[0] & tested[1], "a test clip of the accepted run was trained on"

    add(tmp_path / "clips", 5)
    third = refresh(tmp_path, "--threshold", "-1")
    assert third.status == 5, third.err
    assert third.json["outcome"] == "refused"
    assert pointer.resolve().name == second.json["run"], "the accepted run stays"


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_sigterm_while_it_extracts_trains_and_promotes_nothing(tmp_path: Path) -> None:
    for number in range(32):
        label = ("Jump", "Walk")[number % 2]
        name = f"v_{label}_g{number % 8 + 1:02d}_c{number // 8 + 1:02d}.mp4"
        (tmp_path / "clips" / label).mkdir(parents=True, exist_ok=True)
        # No two of the same bytes, which would be one group.
        write_numbered_clip(tmp_path / "clips" / label / name, frames=40 + number)
    slow = CONFIG.replace("frames = 4", "frames = 16\nbatch = 4")
    (tmp_path / "refresh.toml").write_text(slow, encoding="utf-8")
    # Some clips hang, so that the run is still at work when the first are committed.
    hanging = {"PIXELS_ONCE_FAULTS": json.dumps({"*_c04.mp4": "hang"})}
    process = start("refresh", "--config", "refresh.toml", "--json", cwd=tmp_path, env=hanging)
    url = str(tmp_path / "s.zarr")
    wait_until(lambda: store.exists(url) and store.open(url).counts().get("ready", 0), process)
    process.send_signal(signal.SIGTERM)
    ended = finish(process)
    assert ended.status == 143, ended.err
    assert ended.json["outcome"] == "interrupted"
    assert 0 < ended.json["extracted"] < 32
    assert not list(tmp_path.glob("runs/*"))
    assert store.open(str(tmp_path / "s.zarr")).test_sets == {}
    again = refresh(tmp_path)
    assert (again.status, again.json["outcome"]) == (0, "promoted"), again.err


def test_a_pointer_that_leads_nowhere_is_said(tmp_path: Path) -> None:
    assert promotion.read(tmp_path) is None
    (tmp_path / "accepted").symlink_to("gone")
    with pytest.raises(ConfigError, match="leads to no run"):
        promotion.read(tmp_path)


def test_promoting_replaces_the_pointer_at_once(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        promotion.promote(tmp_path, tmp_path / name)
        assert promotion.read(tmp_path) == (tmp_path / name).resolve()


def test_a_mistake_in_the_config_is_said_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "refresh.toml").write_text(CONFIG.replace("epochs", "epoch"), encoding="utf-8")
    wrong = run_here("refresh", "--config", "refresh.toml")
    assert wrong.status == 1
    assert "[refresh.train] has an unknown key epoch: did you mean epochs?" in wrong.err
    assert not (tmp_path / "s.zarr").exists()
