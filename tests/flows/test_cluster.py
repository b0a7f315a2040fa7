"""Other people's Dask clusters: by address, by class path, and workers that come, go or do not fit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import distributed
import pytest

import store
from flows.checks import Check, readable_sample
from flows.cluster import require_scheduler
from pipeline.errors import ServiceUnavailable
from tests.flows.running import environment, finish, run, start
from tests.flows.sameness import contents

FRAMES = ("--backbone", "frames", "--batch", "1")


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
            return len(client.scheduler_info(n_workers=-1)["workers"]) >= number

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
def dask(tmp_path: Path) -> Iterator[Dask]:
    made = Dask(tmp_path)
    until(lambda: answers(made.address))
    yield made
    made.end()


def until(what: Callable[[], object], most_s: float = 200) -> None:
    deadline = time.monotonic() + most_s
    while not what():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.02)


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
    assert lost.status == 4
    assert "no Dask scheduler answers at 'tcp://127.0.0.1:9'" in lost.err
    unknown = run("features", *words, "--cluster", "distributed.NoCluster", cwd=tmp_path)
    assert unknown.status == 1
    assert "cannot be imported" in unknown.err


HANGING = {"PIXELS_ONCE_FAULTS": json.dumps({"*_c04.mp4": "hang"})}
"""A worker's environment in which three of the clips never end."""


def features(dask: Dask, clips: Path, *more: str) -> list[str]:
    words = ["features", "--videos", str(clips), "--store", "s.zarr", *FRAMES]
    return [*words, "--scheduler", dask.address, *more]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_worker_that_does_not_answer_is_left_out_by_name(
    dask: Dask, clips: Path, single: dict[str, object], tmp_path: Path
) -> None:
    stopped, _ = dask.worker("--no-nanny"), dask.worker("--no-nanny")
    until(lambda: dask.joined(2))
    stopped.send_signal(signal.SIGSTOP)
    done = run(*features(dask, clips), cwd=tmp_path)
    assert done.status == 0, done.err
    assert "1 of 2 workers have not answered for 30 s and are left out until they do" in done.err
    assert contents(str(tmp_path / "s.zarr")) == single


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_worker_that_answers_late_takes_part(
    dask: Dask, clips: Path, single: dict[str, object], tmp_path: Path
) -> None:
    only = dask.worker("--no-nanny")
    until(lambda: dask.joined(1))
    only.send_signal(signal.SIGSTOP)
    running = start(*features(dask, clips), cwd=tmp_path)
    said = b""
    os.set_blocking(running.stderr.fileno(), False)  # type: ignore[union-attr]

    def told() -> bool:
        nonlocal said
        said += os.read(running.stderr.fileno(), 1 << 16) if readable(running.stderr) else b""
        return b"none of the 1 workers" in said or b"has not answered" in said

    until(told)
    only.send_signal(signal.SIGCONT)
    os.set_blocking(running.stderr.fileno(), True)  # type: ignore[union-attr]
    done = finish(running)
    assert done.status == 0, said.decode() + done.err
    assert contents(str(tmp_path / "s.zarr")) == single


def readable(stream: object) -> bool:
    import select

    return bool(select.select([stream], [], [], 0.05)[0])


@pytest.mark.long
@pytest.mark.timeout(900)
def test_with_no_worker_left_the_run_says_so_waits_and_ends_whole(
    dask: Dask, clips: Path, single: dict[str, object], tmp_path: Path
) -> None:
    last = dask.worker("--no-nanny", env=HANGING)
    running = start(*features(dask, clips, "--worker-wait", "8"), cwd=tmp_path)
    until(lambda: len(list(tmp_path.glob("s.zarr/features/c.*"))) >= 4)
    last.kill()
    done = finish(running)
    assert done.status == 4, done.err
    assert "has had no worker: waiting up to 8 s" in done.err
    assert "start workers" in done.err
    assert store.verify(str(tmp_path / "s.zarr")).ok
    dask.worker("--no-nanny")
    again = run(*features(dask, clips), cwd=tmp_path)
    assert again.status == 0, again.err
    assert contents(str(tmp_path / "s.zarr")) == single


@pytest.mark.long
@pytest.mark.timeout(900)
def test_one_sigterm_ends_a_run_that_has_no_worker_left(
    dask: Dask, clips: Path, tmp_path: Path
) -> None:
    last = dask.worker("--no-nanny", env=HANGING)
    running = start(*features(dask, clips), cwd=tmp_path)
    until(lambda: len(list(tmp_path.glob("s.zarr/features/c.*"))) >= 4)
    last.kill()
    running.send_signal(signal.SIGTERM)
    done = finish(running, timeout_s=120)
    assert done.status == 143, done.err
    assert "their clips are left to the next run" in done.err
    assert store.verify(str(tmp_path / "s.zarr")).ok


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_scheduler_that_is_killed_ends_the_run_whole(
    dask: Dask, clips: Path, tmp_path: Path
) -> None:
    dask.worker("--no-nanny", env=HANGING)
    running = start(*features(dask, clips), cwd=tmp_path)
    until(lambda: len(list(tmp_path.glob("s.zarr/features/c.*"))) >= 4)
    dask.processes[0].kill()
    done = finish(running)
    assert done.status == 4, done.err
    assert "scheduler" in done.err
    assert "the run goes on where it stood" in done.err
    assert store.verify(str(tmp_path / "s.zarr")).ok


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.skipif(os.geteuid() != 0, reason="hiding a folder from a process needs root")
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs util-linux' unshare")
def test_a_worker_that_lacks_the_clips_is_refused_by_name(
    dask: Dask, clips: Path, tmp_path: Path
) -> None:
    hide = f'mount -t tmpfs none "{clips}" && exec "$0" "$@"'
    dask.worker("--no-nanny", before=["unshare", "--mount", "sh", "-c", hide])
    until(lambda: dask.joined(1))
    done = run(*features(dask, clips), cwd=tmp_path)
    assert done.status == 1, done.err
    assert "1 of 1 workers cannot take part: tcp://" in done.err
    assert "it does not see the clip" in done.err


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_worker_of_another_version_is_refused_by_name(
    dask: Dask, clips: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import importlib.metadata as m\n"
        "real = m.version\n"
        "m.version = lambda name: '0.0.1' if name == 'pixels-once' else real(name)\n"
    )
    path = os.pathsep.join([str(folder), environment()["PYTHONPATH"]])
    dask.worker("--no-nanny", env={"PYTHONPATH": path})
    until(lambda: dask.joined(1))
    done = run(*features(dask, clips), cwd=tmp_path)
    assert done.status == 1, done.err
    assert "it runs pixels-once 0.0.1 and this run" in done.err


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_worker_short_of_memory_loses_its_batch_and_not_the_store(
    dask: Dask, clips: Path, single: dict[str, object], tmp_path: Path
) -> None:
    dask.worker("--nanny", "--memory-limit", "120MiB")
    done = run(*features(dask, clips, "--worker-wait", "60"), cwd=tmp_path, timeout_s=600)
    assert done.status == 4, done.err
    assert store.verify(str(tmp_path / "s.zarr")).ok
    dask.worker("--no-nanny")
    dask.processes[1].kill()
    again = run(*features(dask, clips), cwd=tmp_path)
    assert again.status == 0, again.err
    assert contents(str(tmp_path / "s.zarr")) == single


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make certificates")
def test_a_cluster_with_certificates_takes_a_run_with_its_own_and_no_other(
    clips: Path, single: dict[str, object], tmp_path: Path
) -> None:
    secured = Dask(tmp_path, certificates(tmp_path))
    try:
        secured.worker("--no-nanny")
        words = features(secured, clips)
        done = run(*words, cwd=tmp_path, env=certificates(tmp_path))
        assert done.status == 0, done.err
        assert contents(str(tmp_path / "s.zarr")) == single
        refused = run(*words, "--store", "other.zarr", cwd=tmp_path)
        assert refused.status == 4, refused.err
        assert "no Dask scheduler answers" in refused.err
    finally:
        secured.end()


def certificates(folder: Path) -> dict[str, str]:
    """One self-signed certificate for all parts of a cluster, as Dask's variables name it."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    if not key.exists():
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
                *("-subj", "/CN=dask", "-keyout", str(key), "-out", str(certificate)),
            ],
            check=True,
            capture_output=True,
        )
    both = {"CERT": str(certificate), "KEY": str(key)}
    return {
        "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "true",
        "DASK_DISTRIBUTED__COMM__TLS__CA_FILE": str(certificate),
        **{
            f"DASK_DISTRIBUTED__COMM__TLS__{part}__{name}": value
            for part in ("SCHEDULER", "WORKER", "CLIENT")
            for name, value in both.items()
        },
    }


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
