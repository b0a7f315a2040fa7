"""Other people's Dask clusters: by address, by class path, and workers that come, go or do not fit."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import store
from flows.checks import Check, readable_sample
from flows.cluster import require_scheduler
from pipeline.errors import ConfigError
from tests.flows.running import environment, finish, run, start
from tests.flows.sameness import contents

FRAMES = ("--backbone", "frames", "--batch", "1")


class Dask:
    """A scheduler and workers, each started by its own command in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
        self._folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self._start("scheduler", "--port", self.address.rsplit(":")[-1], "--no-dashboard")

    def worker(self, *options: str) -> subprocess.Popen[bytes]:
        return self._start("worker", self.address, "--nthreads", "2", "--no-dashboard", *options)

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        home = self._folder / f"machine-{len(self.processes)}"
        home.mkdir()
        # As on another machine: it knows nothing of a Prefect server, a cache or this folder.
        env = environment({"PREFECT_API_URL": "", "PREFECT_HOME": str(home / "prefect")})
        process = subprocess.Popen(
            [sys.executable, "-m", "dask", *words],
            cwd=home,
            env=env | {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")},
            stdout=subprocess.DEVNULL,
            stderr=(home / "log").open("wb"),
        )
        self.processes.append(process)
        return process


@pytest.fixture
def dask(tmp_path: Path) -> Iterator[Dask]:
    made = Dask(tmp_path)
    until(lambda: answers(made.address))
    yield made
    for process in made.processes:
        process.kill()
        process.wait()


def until(what: Callable[[], object], most_s: float = 200) -> None:
    deadline = time.monotonic() + most_s
    while not what():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.02)


def answers(address: str) -> bool:
    try:
        require_scheduler(address)
    except ConfigError:
        return False
    return True


@pytest.fixture(scope="module")
def single(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What one worker process makes of the clips."""
    folder = tmp_path_factory.mktemp("single")
    assert (
        run("features", "--videos", str(clips), "--store", "s.zarr", *FRAMES, cwd=folder).status
        == 0
    )
    return contents(str(folder / "s.zarr"))


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_worker_killed_and_one_added_leave_the_same_store(
    dask: Dask, clips: Path, single: dict[str, object], tmp_path: Path
) -> None:
    first, _ = dask.worker("--no-nanny"), dask.worker("--no-nanny")
    words = ("--videos", str(clips), "--store", "s.zarr", *FRAMES, "--scheduler", dask.address)
    running = start("features", *words, cwd=tmp_path)
    until(lambda: list(tmp_path.glob("s.zarr/features/c.*")))
    first.kill()
    dask.worker("--no-nanny")
    done = finish(running)
    assert done.status == 0, done.err
    assert store.open(tmp_path / "s.zarr").counts()["ready"] == 12
    assert contents(str(tmp_path / "s.zarr")) == single
    assert all(p.poll() is None for p in dask.processes if p is not first), "not ours to end"


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_gpu_asked_for_where_none_is_declared_is_said_at_once(
    dask: Dask, clips: Path, tmp_path: Path
) -> None:
    dask.worker("--no-nanny")
    words = ("--videos", str(clips), "--store", "s.zarr", *FRAMES, "--scheduler", dask.address)
    refused = run("features", *words, "--gpu", "require", cwd=tmp_path)
    assert refused.status == 1
    assert "no worker of 1 declares a GPU resource" in refused.err
    dask.worker("--no-nanny", "--resources", "GPU=1")
    done = run("features", *words, cwd=tmp_path)
    assert done.status == 0, done.err


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_cluster_by_class_path_scales_by_itself(
    clips: Path, single: dict[str, object], tmp_path: Path
) -> None:
    (tmp_path / "run.toml").write_text(
        '[features]\ncluster = "distributed.LocalCluster"\n'
        "[features.cluster_options]\nn_workers = 0\nthreads_per_worker = 2\n"
        'dashboard_address = "127.0.0.1:0"\n'
        "[features.adapt]\nminimum = 1\nmaximum = 2\n",
        encoding="utf-8",
    )
    words = ("--videos", str(clips), "--store", "s.zarr", *FRAMES, "--config", "run.toml")
    done = run("features", *words, cwd=tmp_path)
    assert done.status == 0, done.err
    assert contents(str(tmp_path / "s.zarr")) == single


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_cluster_or_scheduler_that_is_not_there_is_said_in_one_sentence(
    clips: Path, tmp_path: Path
) -> None:
    words = ("--videos", str(clips), "--store", "s.zarr", *FRAMES)
    lost = run("features", *words, "--scheduler", "tcp://127.0.0.1:9", cwd=tmp_path)
    assert lost.status == 1
    assert "no Dask scheduler answers at 'tcp://127.0.0.1:9'" in lost.err
    unknown = run("features", *words, "--cluster", "distributed.NoCluster", cwd=tmp_path)
    assert unknown.status == 1
    assert "cannot be imported" in unknown.err


def test_a_worker_says_what_it_lacks(tmp_path: Path) -> None:
    here = Check(store_url=str(tmp_path / "s.zarr"), clips=[], api_url="")
    assert "does not see the store" in here.problem()
    store.create(here.store_url, layout=store.Layout(), spec={}, fingerprint="0" * 64, software={})
    assert here.problem() == ""
    here.clips = [str(tmp_path / "clip.mp4"), str(tmp_path / "other.mp4")]
    assert "does not see the clip" in here.problem()
    (tmp_path / "other.mp4").write_bytes(b"x")
    assert here.problem() == ""  # one that it reads shows that the mount is there
    here.clips, here.api_url = [], "http://127.0.0.1:9/api"
    assert "does not reach the Prefect server" in here.problem()
    here.versions = here.versions | {"zarr": "0.1"}
    assert "this run 0.1: install the same version" in here.problem()


def test_workers_are_asked_only_for_clips_that_the_flow_can_read(tmp_path: Path) -> None:
    clips = [str(tmp_path / f"{number}.mp4") for number in range(40)]
    assert readable_sample(clips) == []
    Path(clips[0]).symlink_to(tmp_path / "nowhere")
    for clip in clips[20:]:
        Path(clip).write_bytes(b"x")
    sample = readable_sample(clips)
    assert len(sample) > 1
    assert set(sample) <= set(clips[20:])
