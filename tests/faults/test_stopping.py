"""Ctrl-C and SIGTERM: once finishes the clips in hand, twice ends at once, and both leave it whole."""

from __future__ import annotations

import os
import signal

import pytest

import store
from tests.faults.breaking import (
    CLIPS,
    Moment,
    assert_equal,
    assert_gone,
    assert_tidy,
    family,
    features,
    finished,
    wait_for,
)
from tests.flows import running

FIRST_CHUNK = Moment(chunks=1, delay_s=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status", "server"),
    [
        pytest.param(signal.SIGINT, 130, "own", id="Ctrl-C", marks=pytest.mark.long),
        pytest.param(signal.SIGTERM, 143, "session's", id="SIGTERM", marks=pytest.mark.long),
    ],
)
def test_once_finishes_the_clips_in_hand_and_says_what_is_left(
    clips, whole, tmp_path, number, status, server
):
    url = tmp_path / "clips.zarr"
    env = {"PREFECT_API_URL": ""} if server == "own" else {}
    process = features(clips, url, env=env)
    wait_for(FIRST_CHUNK, url, process)
    everyone = family(process.pid)
    os.killpg(process.pid, number)  # as a terminal does: to every process of the group
    ended = running.finish(process)
    assert ended.status == status, ended.err
    assert "the clips in hand are finished" in ended.err
    assert "Traceback" not in ended.err
    said, found = ended.json, store.open(str(url))
    assert (said["outcome"], said["failed"]) == ("interrupted", 0)
    assert said["ready"] + said["left"] == CLIPS
    assert 4 <= said["ready"] < CLIPS
    assert found.counts()["ready"] == said["ready"] == len(found.load())
    assert_tidy(url)
    assert_gone(everyone)
    again = finished(clips, url)
    assert again.json["ready"] == said["left"]
    assert_equal(url, whole)


@pytest.mark.long
@pytest.mark.parametrize(
    "number",
    [pytest.param(signal.SIGINT, id="Ctrl-C"), pytest.param(signal.SIGTERM, id="SIGTERM")],
)
def test_twice_ends_at_once_and_still_whole(clips, whole, tmp_path, number):
    url = tmp_path / "clips.zarr"
    # A clip that never returns: once would wait for its time limit.
    stuck = sorted(clips.rglob("*.mp4"))[5].name
    process = features(clips, url, env={"PIXELS_ONCE_FAULTS": f'{{"{stuck}": "hang"}}'})
    wait_for(Moment(chunks=1, delay_s=0), url, process)
    everyone = family(process.pid)
    os.killpg(process.pid, number)
    said = process.stderr.readline()
    while "once more to stop at once" not in said:
        said = process.stderr.readline()
    os.killpg(process.pid, number)
    ended = running.finish(process, timeout_s=60)
    assert ended.status == 128 + number, ended.err
    assert "Traceback" not in ended.err
    found = store.open(str(url))
    assert store.verify(str(url)).ok
    assert len(found.load()) == found.counts()["ready"]
    assert_tidy(url)
    assert_gone(everyone)
    assert finished(clips, url).status == 0
    assert_equal(url, whole)


@pytest.mark.slow
def test_a_signal_while_the_workers_start_is_not_lost(clips, prefect_api, tmp_path):
    url = tmp_path / "clips.zarr"
    process = features(clips, url)
    wait_for(Moment(chunks=0, delay_s=0), url, process)
    everyone = family(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    ended = running.finish(process, timeout_s=120)
    assert ended.status == 130, ended.err
    assert_tidy(url)
    assert_gone(everyone)
    assert store.open(str(url)).counts()["ready"] == 0
