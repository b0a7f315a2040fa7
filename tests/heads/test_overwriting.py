"""What takes the place of a run is made beside it; whatever ends it, one whole run is there."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError, RunWarning
from pipeline.heads.config import TrainConfig
from pipeline.heads.plots import PLOTS, draw_missing
from pipeline.heads.training import train
from pipeline.heads.work_folder import RunState, run_state, settle
from tests.heads.sources import rising_or_falling

CONFIG = TrainConfig(
    head="mlp", options={"units": 8}, epochs=2, split="grouped", baselines=False, seed=0
)


def content(folder: Path) -> dict[str, str]:
    """A hash of every file in a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, not to be changed."""
    folder = tmp_path_factory.mktemp("finished") / "a"
    train(rising_or_falling(), CONFIG, folder)
    return folder


@pytest.fixture
def runs(finished: Path, tmp_path: Path) -> Path:
    """A folder with one finished run, `a`."""
    shutil.copytree(finished, tmp_path / "a")
    return tmp_path


@pytest.mark.long
def test_a_run_is_replaced_only_by_one_that_is_finished(runs: Path) -> None:
    before = content(runs / "a")
    source, other = rising_or_falling(), dataclasses.replace(CONFIG, seed=1)

    def no_disk(report: Any) -> None:
        raise OSError(28, "No space left on device")

    def ctrl_c(report: Any) -> None:
        raise KeyboardInterrupt

    many = dataclasses.replace(CONFIG, split="kfold", folds=1000)
    with pytest.raises(ConfigError, match="1000 folds cannot be made"):
        train(source, many, runs / "a", overwrite=True)
    assert sorted(path.name for path in runs.iterdir()) == ["a"]
    with pytest.raises(OSError, match="No space"):
        train(source, other, runs / "a", overwrite=True, on_epoch=no_disk)
    assert content(runs / "a") == before
    stopped = train(source, other, runs / "a", overwrite=True, on_epoch=ctrl_c)
    assert stopped["stopped"]
    assert content(runs / "a") == before
    # The replacement that was stopped goes on, and takes the place when it is finished.
    source.frame.loc[0, "label"] = "rise"
    with pytest.raises(ConfigError, match="another label"):
        train(source, other, runs / "a", resume=True)
    resumed = train(rising_or_falling(), other, runs / "a", resume=True)
    assert resumed == json.loads((runs / "a" / "metrics.json").read_text())
    assert json.loads((runs / "a" / "config.json").read_text())["train"]["seed"] == 1
    assert sorted(path.name for path in runs.iterdir()) == ["a"]


@pytest.mark.long
def test_the_new_run_says_which_clips_came_went_or_changed_since_the_old_one(runs: Path) -> None:
    source = rising_or_falling()
    source.frame.loc[0, "label"], source.frame.loc[1, "status"] = "rise", 3
    train(source, CONFIG, runs / "a", overwrite=True)
    assert json.loads((runs / "a" / "config.json").read_text())["since"] == {
        "gone": ["rise/clip_001.mp4"],
        "label": [["fall/clip_000.mp4", "fall", "rise"]],
    }


def test_a_replacement_that_died_between_its_renames_is_completed(runs: Path) -> None:
    shutil.copytree(runs / "a", runs / ".c.next")
    (runs / "a").rename(runs / ".c.old")
    (runs / ".c.old" / "model.keras").unlink()
    settle(runs / "c")
    assert (runs / "c" / "model.keras").exists(), "the old run came back"
    assert [path.name for path in runs.iterdir()] == ["c"]
    # Without a new run that is finished, the old one comes back.
    (runs / "c").rename(runs / ".c.old")
    (runs / ".c.next" / "checkpoint").mkdir(parents=True)
    settle(runs / "c")
    assert run_state(runs / "c") is RunState.FINISHED
    # Killed before the first of them, the new run was finished, too.
    shutil.rmtree(runs / ".c.next")
    shutil.copytree(runs / "c", runs / ".c.next")
    (runs / "c" / "model.keras").unlink()
    settle(runs / "c")
    assert (runs / "c" / "model.keras").exists(), "the new run was lost"
    assert [path.name for path in runs.iterdir()] == ["c"]


def test_a_picture_that_cannot_be_drawn_takes_no_result_with_it(tmp_path: Path) -> None:
    def in_the_way(report: Any) -> None:
        (tmp_path / "a" / "confusion.png").mkdir(exist_ok=True)

    with pytest.warns(RunWarning, match=r"confusion\.png was not drawn \(IsADirectoryError"):
        metrics = train(rising_or_falling(), CONFIG, tmp_path / "a", on_epoch=in_the_way)
    assert json.loads((tmp_path / "a" / "metrics.json").read_text()) == metrics
    assert run_state(tmp_path / "a") is RunState.FINISHED
    (tmp_path / "a" / "confusion.png").rmdir()
    (tmp_path / "a" / "model.png").unlink()
    draw_missing(tmp_path / "a")
    assert all((tmp_path / "a" / name).is_file() for name in PLOTS)


@pytest.mark.long
def test_a_process_killed_while_it_overwrites_leaves_the_old_run(runs: Path) -> None:
    before = content(runs / "a")
    code = (
        "import os, signal\n"
        "from pipeline.heads.config import TrainConfig\n"
        "from pipeline.heads.training import train\n"
        "from tests.heads.sources import rising_or_falling\n"
        "def die(report):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        f"train(rising_or_falling(), TrainConfig(head='mlp', epochs=3), {str(runs / 'a')!r},\n"
        "      overwrite=True, on_epoch=die)\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env=os.environ, check=False)
    assert done.returncode == -signal.SIGKILL
    assert content(runs / "a") == before
    assert (runs / ".a.next").exists()
    train(rising_or_falling(), CONFIG, runs / "a", overwrite=True)
    assert sorted(path.name for path in runs.iterdir()) == ["a"]
