"""A saved run says so when the store that it was trained from holds other features now."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import store
from flows.train.shared import load_stores, moved_on
from pipeline.errors import ConfigError
from tests.store.stores import filled, put_batch

DRAWS = False


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> str:
    made = filled(str(tmp_path_factory.mktemp("store") / "clips.zarr"), rows=24)
    with store.Writer.acquire(made, owner="test") as writer:
        # Clips of equal bytes would all be on one side of a split.
        writer.set(range(24), sha256=np.array([f"{row:064x}" for row in range(24)], dtype=object))
        writer.flush()
    return made


def copy_of(url: str, tmp_path: Path) -> str:
    return str(shutil.copytree(url, tmp_path / "clips.zarr"))


@pytest.mark.long
def test_a_run_names_the_clips_whose_features_are_others_now(url, tmp_path):
    from pipeline.heads.config import TrainConfig
    from pipeline.heads.saved import load_run
    from pipeline.heads.training import train

    mine = copy_of(url, tmp_path)
    clips = load_stores(mine).clips
    train(
        clips,
        TrainConfig(head="mlp", options={"units": 4}, epochs=1, baselines=False),
        tmp_path / "run",
    )
    run = load_run(tmp_path / "run")
    assert moved_on(run) == ""
    with store.Writer.acquire(mine, owner="test") as writer:
        put_batch(writer, 1, version=1)
    said = moved_on(run)
    assert f"{mine} has moved on since {tmp_path / 'run'} was trained (4 clips have other" in said
    assert "🎬" in said  # it names one
    (tmp_path / "run" / "identity.json").unlink()  # as an older version left it
    assert "4 clips have other features" in moved_on(run)
    shutil.rmtree(mine)
    assert moved_on(run) == ""  # a head needs no store


def test_training_says_which_rows_it_leaves_out(url, tmp_path, capsys):
    mine = copy_of(url, tmp_path)
    with store.Writer.acquire(mine, owner="test") as writer:
        writer.mark([0, 1], store.PENDING)
        writer.mark([2], store.FAILED, "unreadable")
        writer.flush()
    assert len(load_stores(mine).clips.rows) == 21
    assert "21 ready rows" in (said := capsys.readouterr().err)
    assert "2 pending and 1 failed rows are left out" in said


def test_features_that_are_not_finite_are_refused_in_one_sentence(url, tmp_path):
    mine = copy_of(url, tmp_path)
    with store.Writer.acquire(mine, owner="test") as writer:
        chunk = store.read_batch(mine, 0).copy()
        chunk[1, 0] = np.nan
        digests = store.write_batch(mine, 0, chunk, token=writer.token)
        writer.set(range(len(digests)), digest=digests)
        writer.flush()
    with pytest.raises(ConfigError, match=r"are not finite: run `verify --repair`"):
        load_stores(mine)


def test_a_store_of_a_newer_format_is_refused_in_one_sentence(url, tmp_path):
    mine = copy_of(url, tmp_path)
    metadata = Path(mine) / "zarr.json"
    values = json.loads(metadata.read_text())
    values["attributes"]["format_version"] = 99
    metadata.write_text(json.dumps(values))
    with pytest.raises(store.StoreTooNew, match="format version 99"):
        load_stores(mine)
