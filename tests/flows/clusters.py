"""A Dask cluster as others run it: a scheduler and workers, each a command of its own."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import distributed
import pytest

from flows.extract.cluster import require_scheduler
from flows.extract.worker_checks import workers_of
from pipeline.errors import ServiceUnavailable
from tests.flows.running import environment, run
from tests.flows.sameness import contents
from tests.waiting import wait_until

FRAMES = ("--backbone", "frames", "--batch", "1")
HANGING = {"PIXELS_ONCE_FAULTS": json.dumps({"*_c04.mp4": "hang"})}
"""A worker's environment in which three of the clips never end."""


def features(dask: Dask, clips: Path, *more: str) -> list[str]:
    words = ["features", "--videos", str(clips), "--store", "s.zarr", *FRAMES]
    return [*words, "--scheduler", dask.address, *more]


class Dask:
    """A scheduler and workers, each started by its own command in a folder of its own."""

    def __init__(self, folder: Path, env: Mapping[str, str] | None = None) -> None:
        """env: what every process of the cluster has in its environment besides."""
        self._env = dict(env or {})
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            protocol = "tls" if self._env else "tcp"
            self.address = f"{protocol}://127.0.0.1:{probe.getsockname()[1]}"
        self._folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        port = self.address.rsplit(":")[-1]
        self._start(
            ["scheduler", "--host", f"{protocol}://127.0.0.1", "--port", port, "--no-dashboard"]
        )

    def worker(
        self, *options: str, env: Mapping[str, str] | None = None, before: Sequence[str] = ()
    ) -> subprocess.Popen[bytes]:
        """before: a command that the worker's command is handed to."""
        words = ["worker", self.address, "--nthreads", "2", "--no-dashboard", *options]
        return self._start(words, env, before)

    def _start(
        self,
        words: Sequence[str],
        env: Mapping[str, str] | None = None,
        before: Sequence[str] = (),
    ) -> subprocess.Popen[bytes]:
        home = self._folder / f"machine-{len(self.processes)}"
        home.mkdir()
        # As on another machine: it knows nothing of a Prefect server, a cache or this folder.
        own = {"PREFECT_API_URL": "", "PREFECT_HOME": str(home / "prefect")}
        process = subprocess.Popen(
            [*before, sys.executable, "-m", "dask", *words],
            cwd=home,
            env=environment(own | self._env | dict(env or {}))
            | {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")},
            stdout=subprocess.DEVNULL,
            stderr=(home / "log").open("wb"),
        )
        self.processes.append(process)
        return process

    def joined(self, number: int) -> bool:
        """Whether so many workers have told the scheduler of themselves."""
        with distributed.Client(self.address, timeout=60, set_as_default=False) as client:
            return len(workers_of(client)) >= number

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
def dask(tmp_path: Path) -> Iterator[Dask]:
    made = Dask(tmp_path)
    wait_until(lambda: answers(made.address))
    yield made
    made.end()


def answers(address: str) -> bool:
    try:
        require_scheduler(address)
    except ServiceUnavailable:
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


def until(what: Callable[[], object], keep_up: Callable[[], object] = lambda: None) -> None:
    """Return once `what` is true; `keep_up` is called between the looks. Fails after a minute."""

    def holds() -> object:
        keep_up()
        return what()

    wait_until(holds, limit_s=60)
