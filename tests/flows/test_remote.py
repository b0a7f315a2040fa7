"""Clips and stores at URLs: an S3 server on this machine, and clips behind HTTP."""

from __future__ import annotations

import json
import os
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

import store
from tests.buckets import FaultyBucket, as_s3, bucket, faulty_bucket, kind_of
from tests.flows.running import Finished, run, start
from tests.flows.sameness import contents
from tests.proxy import (
    BUSY_503,
    CUT_AFTER,
    CUT_BEFORE,
    FORBIDDEN_403,
    HALF,
    LOST_500,
    MOVED_301,
    Fault,
    nth,
)

FRAMES = ("--backbone", "frames", "--batch", "2")
SECRET = "sEcReT-0f1e2d3c4b5a69788796"
PLACE_BOUND = {"mtime_ns"}  # an object's time is its upload's


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The URL of a bucket behind a real HTTP endpoint."""
    with bucket(SECRET) as url:
        yield url


@pytest.fixture(scope="module")
def clips_in_s3(s3: str, clips: Path) -> str:
    import s3fs

    s3fs.S3FileSystem().put(str(clips), f"{s3}/clips", recursive=True)
    return f"{s3}/clips"


@pytest.fixture(scope="module")
def local(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The arrays of a store that a run on this machine's disk made of the same clips."""
    folder = tmp_path_factory.mktemp("local")
    assert features(str(clips), "s.zarr", folder).status == 0
    return comparable(str(folder / "s.zarr"))


def features(videos: str, url: str, cwd: Path, **environment: str) -> Finished:
    return run("features", "--videos", videos, "--store", url, *FRAMES, cwd=cwd, env=environment)


def comparable(url: str) -> dict[str, object]:
    return {name: value for name, value in contents(url).items() if name not in PLACE_BOUND}


@pytest.mark.long
@pytest.mark.timeout(900)
def test_clips_and_store_in_s3_equal_the_local_run(
    s3: str, clips_in_s3: str, local: dict[str, object], tmp_path: Path
) -> None:
    done = features(clips_in_s3, f"{s3}/whole.zarr", tmp_path, PIXELS_ONCE_SCRATCH=str(tmp_path))
    assert done.status == 0, done.err
    assert comparable(f"{s3}/whole.zarr") == local
    assert not list(tmp_path.glob("pixels-once-clips-*")), "fetched clips were left behind"
    again = features(clips_in_s3, f"{s3}/whole.zarr", tmp_path)
    assert "nothing to do: all 12 clips" in again.out


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_killed_run_in_s3_resumes_to_the_same_store(
    s3: str, clips_in_s3: str, local: dict[str, object], tmp_path: Path
) -> None:
    import s3fs

    url = f"{s3}/killed.zarr"
    words = ("--videos", clips_in_s3, "--store", url, *FRAMES, "--timeout", "600")
    # One clip hangs, so that the run is surely in its middle when it is killed.
    hang = {"PIXELS_ONCE_FAULTS": json.dumps({"*g01_c01*": "hang"})}
    process = start("features", *words, cwd=tmp_path, env=hang)
    fs, deadline = s3fs.S3FileSystem(use_listings_cache=False), time.monotonic() + 200
    while not fs.glob(f"{url}/features/c.*") and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert store.open(url).counts()["pending"] > 0, "it was killed too late to show anything"
    done = features(clips_in_s3, url, tmp_path)
    assert done.status == 0, done.err
    assert comparable(url) == local


@pytest.fixture(scope="module")
def faulty() -> Iterator[FaultyBucket]:
    """A bucket that runs reach through a proxy, which breaks what its rule says."""
    with faulty_bucket() as found, pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_MAX_ATTEMPTS", "2")
        yield found


LEASE = "PUT lease if there is none"


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("kind", "fault", "times", "status", "said"),
    [
        (LEASE, CUT_AFTER, 1, 0, ""),
        (LEASE, LOST_500, 1, 0, ""),
        (LEASE, HALF, 1, 0, ""),
        (LEASE, LOST_500, 10**6, 4, "internal error"),
        ("PUT chunk of features", BUSY_503, 1, 0, ""),
        ("PUT chunk of features", CUT_BEFORE, 10**6, 4, ""),
        ("PUT chunk of features", FORBIDDEN_403, 10**6, 4, "credentials may list"),
        ("PUT chunk of status", LOST_500, 10**6, 4, "internal error"),
        ("GET lease", MOVED_301, 10**6, 4, "AWS_DEFAULT_REGION"),
        ("PUT chunk of a column", CUT_AFTER, 1, 0, ""),
        ("DELETE lease", CUT_AFTER, 1, 0, ""),
        ("DELETE lease", FORBIDDEN_403, 10**6, 0, ""),
    ],
    ids=lambda value: str(value).replace(" ", "-") if value != "" else "well",
)
def test_a_whole_run_meets_a_fault_of_its_bucket(
    faulty: FaultyBucket,
    clips: Path,
    local: dict[str, object],
    tmp_path: Path,
    kind: str,
    fault: Fault,
    times: int,
    status: int,
    said: str,
) -> None:
    url = f"{faulty.url}/{uuid.uuid4().hex}.zarr"
    words = ("--videos", str(clips), "--store", url, *FRAMES, "--if-busy", "skip")
    faulty.proxy.rule = nth(1, as_s3(fault), lambda request: kind_of(request) == kind, times=times)
    first = len(faulty.proxy.seen)
    done = run("features", *words, cwd=tmp_path)
    faulty.proxy.rule = None
    assert any(request.fault for request in faulty.proxy.seen[first:]), "the fault was never met"
    assert done.status == status, done.err
    assert "skipped" not in done.out + done.err
    assert "is being written by" not in done.err
    assert "Traceback" not in done.err
    assert said in done.err
    again = run("features", *words, cwd=tmp_path)
    assert again.status == 0, again.err
    assert "skipped" not in again.out + again.err
    assert comparable(url) == local
    assert store.verify(url).ok


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_service_without_exclusive_creation_is_written_to_with_no_lease_only(
    faulty: FaultyBucket, clips: Path, local: dict[str, object], tmp_path: Path
) -> None:
    url = f"{faulty.url}/{uuid.uuid4().hex}.zarr"
    words = ("--videos", str(clips), "--store", url, *FRAMES)
    faulty.proxy.rule = nth(
        1,
        as_s3(Fault(name="501", forward=False, status=501)),
        lambda request: "if-none-match" in request.headers,
        times=10**6,
    )
    try:
        refused = run("features", *words, cwd=tmp_path)
        assert refused.status == 4, refused.err
        assert "--no-lease" in refused.err
        assert "Traceback" not in refused.err
        done = run("features", *words, "--no-lease", cwd=tmp_path)
        assert done.status == 0, done.err
        assert comparable(url) == local
        forgotten = run("forget", "--store", url, "--clips", "Walk/*", "--no-lease", cwd=tmp_path)
        assert forgotten.status == 0, forgotten.err
        again = run("features", *words, "--no-lease", cwd=tmp_path)
        assert again.status == 0, again.err
        assert comparable(url) == local
    finally:
        faulty.proxy.rule = None


def test_memory_stores_are_refused_because_workers_are_other_processes(tmp_path: Path) -> None:
    refused = features(str(tmp_path), "memory://s.zarr", tmp_path)
    assert refused.status == 1
    assert "one process only" in refused.err
