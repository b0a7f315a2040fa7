"""What a run takes up from others: a store that it waited for, damage that others have done."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import zarr

import store
from flows.extract.request import stage_of
from flows.settings.features import FeaturesSettings
from pipeline.features.catalog import discover
from store import GONE, PENDING, READY
from tests.flows.running import run, run_here

FRAMES = ("--backbone", "frames", "--batch", "64")


def as_if_extracted(clips: Path, url: Path) -> None:
    """A store in which every clip of the folder is ready (with zeros for features)."""
    settings = FeaturesSettings(videos=str(clips), store=str(url), backbone="frames")
    spec, _, _ = stage_of(settings, None)
    layout = store.Layout(steps=spec.sampling.steps, shape=spec.shape, dtype=spec.dtype)
    store.create(url, layout=layout, spec=spec.to_dict(), fingerprint=spec.fingerprint, software={})
    with store.Writer.acquire(str(url), owner="test") as writer:
        take_in(writer, clips)


def take_in(writer: store.Writer, clips: Path) -> None:
    """What a run would have done with the clips that the store does not know."""
    catalog = discover(str(clips))
    fresh = catalog[~catalog["video_id"].isin(writer.column("video_id"))]
    rows = writer.append(fresh.drop(columns="path"))
    features = np.zeros((len(rows), *zarr.open_group(writer.url)["features"].shape[1:]), np.uint8)
    mask = np.ones(features.shape[1], bool)
    steps = np.arange(features.shape[1])
    writer.put_steps(rows, *(np.tile(one, (len(rows), 1)) for one in (mask, steps, steps / 25)))
    writer.set(rows, sha256=np.array([f"{row:064x}" for row in rows], dtype=object))
    writer.set(rows, frames_decoded=4, digest=store.row_digests(features))
    writer.mark(rows, READY)
    writer.set_attributes(classes=sorted(set(catalog["label"])))
    writer.flush()


def test_a_run_that_waited_lists_the_clips_after_the_wait(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, url = tmp_path / "clips", tmp_path / "s.zarr"
    shutil.copytree(clips, folder)
    as_if_extracted(folder, url)
    other = store.Writer.acquire(str(url), owner="other")

    def meanwhile(seconds: float) -> None:
        """While our run waits, the other one finds a new clip, stores it and ends."""
        if other.token is not None:
            new = folder / "Jump" / "v_Jump_g09_c01.mp4"
            shutil.copy(folder / "Jump" / "v_Jump_g01_c01.mp4", new)
            take_in(other, folder)
            other.release()
            other.token = None

    clock = SimpleNamespace(time=time.time, monotonic=time.monotonic, sleep=meanwhile)
    monkeypatch.setattr("store.lease.time", clock)  # the lease's alone: others sleep as ever
    done = run_here(
        *("features", "--videos", str(folder), "--store", str(url), *FRAMES, "--if-busy", "wait")
    )
    assert done.status == 0, done.err
    assert other.token is None, "the run did not wait"
    table = store.open(url).table()
    assert table["state"].astype(str).tolist() == ["ready"] * 13


def test_a_damaged_row_whose_clip_is_gone_stays_gone_and_loses_its_features(
    clips: Path, tmp_path: Path
) -> None:
    url = tmp_path / "s.zarr"
    as_if_extracted(clips, url)
    with store.Writer.acquire(str(url), owner="test") as writer:
        writer.mark([3], GONE)
        damaged = np.array([3, 5])
        writer.set(damaged, digest=1)
        assert writer.check_batches([0]).tolist() == [3, 5]
        assert writer.unmake(damaged).tolist() == [5]
        status = writer.column("status")
        assert (status[3], status[5]) == (GONE, PENDING)
        assert not writer.column("digest")[damaged].any()
        assert writer.check_batches([0]).tolist() == []


@pytest.mark.parametrize(
    "words",
    [
        ("features", "--videos", "{clips}", *FRAMES),
        ("forget", "--clips", "Walk/*"),
        ("freeze", "--name", "walks", "--split", "grouped"),
        ("verify", "--repair"),
    ],
    ids=lambda words: words[0],
)
def test_every_command_that_writes_does_so_without_a_lease_where_it_is_told_to(
    clips: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    url = str(tmp_path / "s.zarr")
    as_if_extracted(clips, tmp_path / "s.zarr")
    with store.Writer.acquire(url, owner="test") as writer:
        writer.set(np.array([5]), digest=1)
        if words[0] == "verify":
            writer.flush()
        given = [word.format(clips=clips) for word in words]
        held = run_here(*given, "--store", url)
        assert held.status == 1, held.err
        assert "is being written by" in held.err
        free = run_here(*given, "--store", url, "--no-lease")
        assert free.status == 0, free.err


@pytest.mark.long
@pytest.mark.timeout(600)
def test_damage_to_a_gone_row_costs_a_run_nothing_else(clips: Path, tmp_path: Path) -> None:
    folder, url = tmp_path / "clips", tmp_path / "s.zarr"
    shutil.copytree(clips, folder)
    words = ("features", "--videos", str(folder), "--store", str(url), *FRAMES)
    assert run(*words, cwd=tmp_path).status == 0
    gone = store.open(url).table()["video_id"].iloc[3]
    (folder / gone).unlink()
    assert run(*words, cwd=tmp_path).status == 0
    features = zarr.open_group(url, mode="r+")["features"]
    features[3, 0] = 255 - features[3, 0]
    changed = folder / store.open(url).table()["video_id"].iloc[0]
    shutil.copy(folder / store.open(url).table()["video_id"].iloc[2], changed)
    done = run(*words, cwd=tmp_path)
    assert done.status == 0, done.err
    states = store.open(url).table()["state"].astype(str).tolist()
    assert states == ["ready"] * 3 + ["gone"] + ["ready"] * 8
    assert store.verify(url).ok


def test_batches_of_a_worker_that_died_are_checked_by_whoever_comes_next(
    clips: Path, tmp_path: Path
) -> None:
    url = tmp_path / "s.zarr"
    as_if_extracted(clips, url)
    with store.Writer.acquire(str(url), owner="stopped") as writer:
        writer.in_flight([0])
        writer.suspect(0)  # resubmitted
        writer.in_flight([])  # and its second try came back
    with store.Writer.acquire(str(url), owner="next") as writer:
        assert writer.suspects == [0]
        writer.check_batches(writer.suspects)
    with store.Writer.acquire(str(url), owner="last") as writer:
        assert writer.suspects == []
