"""From clips to a prediction, by the commands that a user types."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import store
from tests.features.clips import write_numbered_clip
from tests.flows.running import Finished, run_here

FRAMES = ("--backbone", "frames")


def features(videos: Path, cwd: Path, *words: str) -> Finished:
    """A run over `videos` into `s.zarr` in a folder, in this process."""
    return run_here("features", "--videos", str(videos), "--store", str(cwd / "s.zarr"), *words)


def array_bytes(url: Path) -> dict[str, str]:
    """Every file of the store but the group's own metadata → the hash of its bytes."""
    return {
        str(path.relative_to(url)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(url.rglob("*"))
        if path.is_file() and path != url / "zarr.json"
    }


@pytest.fixture(scope="module")
def made(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the clips and a store made of them; tests copy it."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(clips, folder / "clips")
    first = features(folder / "clips", folder, *FRAMES, "--batch", "8")
    assert first.status == 0, first.err
    return folder


@pytest.fixture
def work(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may change, with the clips' times kept."""
    shutil.copytree(made, tmp_path / "work")
    return tmp_path / "work"


def test_a_second_run_changes_no_byte_of_the_arrays_and_says_so(work: Path) -> None:
    before = array_bytes(work / "s.zarr")
    again = features(work / "clips", work, *FRAMES)
    assert again.status == 0
    assert "nothing to do: all 12 clips" in again.out
    assert array_bytes(work / "s.zarr") == before


def test_a_changed_a_new_and_a_vanished_clip_cost_one_row_each(work: Path) -> None:
    before = store.open(work / "s.zarr")
    changed, vanished = before.table()["video_id"].iloc[[0, 5]]
    write_numbered_clip(work / "clips" / changed, frames=33)
    (work / "clips" / vanished).unlink()
    write_numbered_clip(work / "clips" / "Jump" / "a new one 🎾.mp4", frames=12)
    result = features(work / "clips", work, *FRAMES, "--json").json
    assert result["why"] == {"new": 1, "changed": 1, "tried again": 0, "pending": 0}
    after = store.open(work / "s.zarr")
    table = after.table()
    assert table["video_id"].iloc[12] == "Jump/a new one 🎾.mp4"
    assert table["state"].iloc[5] == "gone"
    differs = np.flatnonzero(before.digests(range(12)) != after.digests(range(12)))
    assert differs.tolist() == [0]
    assert table["frames_decoded"].iloc[0] == 33


def test_a_touched_or_copied_clip_is_not_made_again(work: Path) -> None:
    for path in (work / "clips").rglob("*.mp4"):
        os.utime(path, ns=(1, 1))
    assert "nothing to do" in features(work / "clips", work, *FRAMES).out


def test_another_spec_is_refused_with_both_specs_and_the_way_out(work: Path) -> None:
    refused = features(work / "clips", work, *FRAMES, "--fit", "pad")
    assert refused.status == 1
    assert "fit is crop there and pad here" in refused.err
    assert "another STORE" in refused.err
    assert "Traceback" not in refused.err


def test_another_batch_is_refused(work: Path) -> None:
    refused = features(work / "clips", work, *FRAMES, "--batch", "16")
    assert refused.status == 1
    assert "batch 8, not 16" in refused.err


def test_a_short_clip_is_masked_and_keeps_its_frames_exact(work: Path) -> None:
    shutil.rmtree(work / "clips")
    (work / "clips").mkdir()
    write_numbered_clip(work / "clips" / "short.mp4", frames=36)
    write_numbered_clip(work / "clips" / "long.mp4", frames=100)
    words = ("--videos", str(work / "clips"), "--store", str(work / "t.zarr"))
    done = run_here("features", *words, *FRAMES)
    assert done.status == 0, done.err
    source = store.open(work / "t.zarr")
    rows = source.table().reset_index().set_index("video_id")["row"]
    indices, times = source.steps_of([rows["short.mp4"], rows["long.mp4"]])
    assert indices[0].tolist() == [*range(36), -1, -1, -1, -1]
    assert np.isnan(times[0, 36:]).all()
    assert indices[1].tolist() == [int((i + 0.5) * 100 / 40) for i in range(40)]
    np.testing.assert_allclose(times[1], indices[1] / 25, atol=1e-3)


def test_clips_that_give_nothing_are_listed_and_do_not_fail_the_run(tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    write_numbered_clip(clips / "good.mp4", frames=12)
    (clips / "empty.mp4").touch()
    (clips / "text.mp4").write_text("this is no film")
    done = features(clips, tmp_path, *FRAMES)
    assert done.status == 0
    assert "1 ready, 2 failed of 3 clips" in done.out
    assert "empty.mp4" in done.out
    table = store.open(tmp_path / "s.zarr").table().set_index("video_id")
    assert table.loc[["empty.mp4", "text.mp4"], "state"].tolist() == ["failed", "failed"]
    assert table.loc[["empty.mp4", "text.mp4"], "reason"].tolist() == ["unreadable"] * 2


@pytest.mark.long
def test_too_many_failed_clips_are_status_3(tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    write_numbered_clip(clips / "good.mp4", frames=12)
    (clips / "empty.mp4").touch()
    done = features(clips, tmp_path, *FRAMES, "--max-failed", "0.2")
    assert done.status == 3
    assert "over --max-failed" in done.err
    assert store.open(tmp_path / "s.zarr").counts()["ready"] == 1


def test_a_dry_run_writes_nothing(clips: Path, tmp_path: Path) -> None:
    done = features(clips, tmp_path, *FRAMES, "--dry-run", "--json").json
    assert done["planned"] == 12
    assert done["estimate_bytes"] == 12 * 40 * 64 * 64 * 3
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.long
def test_training_loads_neither_opencv_nor_the_backbone(work: Path) -> None:
    import subprocess
    import sys

    from tests.flows.running import environment

    code = (
        "import sys\n"
        "from flows.cli.main import main\n"
        "assert main(['train', '--store', 's.zarr', '--head', 'early_fusion', '--epochs', '1',"
        " '--split', 'stratified', '--name', 'x']) == 0\n"
        "bad = [m for m in sys.modules if m.split('.')[0] in ('cv2', 'av')"
        " or m.startswith(('pipeline.features.backbones', 'pipeline.features.decoding'))]\n"
        "assert 'keras' in sys.modules and not bad, bad\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=work, env=environment())


@pytest.mark.slow
def test_features_train_and_predict_agree_on_their_first_stage(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = features(clips, tmp_path, "--weights", "random:3", "--backbone", "mobilenet")
    assert made.status == 0, made.err
    words = ("--store", "s.zarr", "--head", "mlp", "--options", "units=8", "--epochs", "2")
    trained = run_here("train", *words, "--split", "stratified")
    assert trained.status == 0, trained.err
    folder = tmp_path / "runs" / "mlp-s"
    assert {path.name for path in folder.iterdir()} >= {
        "model.keras",
        "config.json",
        "history.csv",
        "metrics.json",
        "predictions.csv",
        "curves.png",
        "confusion.png",
        "model.png",
    }
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["test"].keys() >= {"top1", "top5", "loss", "clips"}
    assert metrics["baseline"].keys() >= {"majority", "chance"}
    again = run_here("train", *words)
    assert again.status == 1
    assert "--overwrite" in again.err
    clip = next((clips / "Walk").iterdir())
    predict = ("predict", "--run", str(folder), "--video", str(clip))
    said = run_here(*predict, "--json").json["predictions"][0]
    assert sum(one["probability"] for one in said["top"]) == pytest.approx(1, abs=1e-4)
    wrong = run_here(*predict, "--weights", "random:4")
    assert wrong.status == 1
    assert "was made with weights random:3" in wrong.err
