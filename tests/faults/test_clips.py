"""Bad clips cost only themselves, in a whole run: those of the wild, and those made to break it."""

from __future__ import annotations

import csv
import json
import shutil

import pytest

import store
from tests.faults.breaking import assert_gone, assert_tidy, family, features, finished_here
from tests.flows import running

ODD = running.CLIPS / "odd"


@pytest.mark.long
@pytest.mark.skipif(not ODD.is_dir(), reason="the odd clips are not here")
def test_every_odd_file_ends_as_expected(prefect_api, tmp_path):
    with (ODD / "expected.csv").open(encoding="utf-8") as file:
        expected = {row["file"]: row for row in csv.DictReader(file)}
    videos = tmp_path / "odd"
    shutil.copytree(ODD, videos, ignore=shutil.ignore_patterns("*.csv"))
    url = tmp_path / "odd.zarr"
    ended = finished_here(videos, url)
    assert ended.status == 0, ended.err
    table = store.open(str(url)).table().set_index("video_id")
    assert set(table.index) == set(expected)
    for name, row in expected.items():
        found = table.loc[name]
        assert found["state"] == row["status"], name
        assert found["reason"] in row["reason"].split("|"), name
        if row["frames_decoded"]:
            assert found["frames_decoded"] == int(row["frames_decoded"]), name
    assert store.verify(str(url)).ok
    again = finished_here(videos, url)
    assert (again.json["planned"], again.json["outcome"]) == (0, "nothing to do")


@pytest.mark.long
def test_clips_that_crash_hang_or_eat_memory_become_failed_rows(clips, whole, tmp_path):
    url = tmp_path / "clips.zarr"
    names = [path.rsplit("/", 1)[1] for path in whole["video_id"]]
    faults = {
        names[3]: "segfault",
        names[4]: "hang",
        names[21]: "spin_gil",
        names[22]: "eat_memory",
    }
    reasons = {3: "decoder_crashed", 4: "timed_out", 21: "timed_out", 22: "out_of_memory"}
    process = features(
        clips, url, "--timeout", "25", env={"PIXELS_ONCE_FAULTS": json.dumps(faults)}
    )
    everyone = family(process.pid)
    ended = running.finish(process)
    assert ended.status == 0, ended.err
    assert (ended.json["ready"], ended.json["failed"]) == (36, 4)
    table = store.open(str(url)).table()
    assert table.loc[list(reasons), "reason"].tolist() == list(reasons.values())
    assert (table.drop(index=list(reasons))["state"] == "ready").all()
    assert_gone(everyone)
    assert_tidy(url)
    # Memory heals by itself, the others when they are asked for.
    again = finished_here(clips, url)
    assert (again.json["planned"], again.json["ready"]) == (1, 1)
    forced = finished_here(clips, url, "--retry", "timed_out,decoder_crashed")
    assert (forced.json["planned"], forced.json["ready"]) == (3, 3)
    found = store.open(str(url)).load()
    assert (found.features == whole["features"]).all()


@pytest.mark.slow
def test_an_unknown_reason_to_retry_is_the_users_mistake(clips, prefect_api, tmp_path):
    ended = finished_here(clips, tmp_path / "clips.zarr", "--retry", "timeout")
    assert ended.status == 1
    assert "did you mean timed_out" in ended.err
