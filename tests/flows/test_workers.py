"""Workers of a cluster that die, stop, are late, do not fit or run out: an outcome each."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

import store
from tests.flows.clusters import FRAMES, HANGING, Dask, features
from tests.flows.clusters import dask as dask
from tests.flows.clusters import single as single
from tests.flows.running import environment, finish, run, start
from tests.flows.sameness import contents
from tests.waiting import wait_until

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


def test_a_worker_killed_and_one_added_leave_the_same_store(
    dask: Dask, clips: Path, single: dict[str, object], tmp_path: Path
) -> None:
    first, _ = dask.worker("--no-nanny"), dask.worker("--no-nanny")
    words = ("--videos", str(clips), "--store", "s.zarr", *FRAMES, "--scheduler", dask.address)
    running = start("features", *words, cwd=tmp_path)
    wait_until(lambda: list(tmp_path.glob("s.zarr/features/c.*")))
    first.kill()
    dask.worker("--no-nanny")
    done = finish(running)
    assert done.status == 0, done.err
    assert store.open(tmp_path / "s.zarr").counts()["ready"] == 12
    assert contents(str(tmp_path / "s.zarr")) == single
    assert all(p.poll() is None for p in dask.processes if p is not first), "not ours to end"


def test_a_worker_that_does_not_answer_is_left_out_by_name(
    dask: Dask, clips: Path, single: dict[str, object], tmp_path: Path
) -> None:
    stopped, _ = dask.worker("--no-nanny"), dask.worker("--no-nanny")
    wait_until(lambda: dask.joined(2))
    stopped.send_signal(signal.SIGSTOP)
    done = run(*features(dask, clips), cwd=tmp_path)
    assert done.status == 0, done.err
    assert "1 of 2 workers have not answered for 30 s and are left out until they do" in done.err
    assert contents(str(tmp_path / "s.zarr")) == single


def test_a_worker_that_answers_late_takes_part(
    dask: Dask, clips: Path, single: dict[str, object], tmp_path: Path
) -> None:
    only = dask.worker("--no-nanny")
    wait_until(lambda: dask.joined(1))
    only.send_signal(signal.SIGSTOP)
    running = start(*features(dask, clips), cwd=tmp_path)
    said = b""
    os.set_blocking(running.stderr.fileno(), False)  # type: ignore[union-attr]

    def told() -> bool:
        nonlocal said
        said += os.read(running.stderr.fileno(), 1 << 16) if readable(running.stderr) else b""
        return b"none of the 1 workers" in said or b"has not answered" in said

    try:
        wait_until(told)
    except AssertionError:
        os.killpg(running.pid, signal.SIGKILL)
        raise AssertionError(said.decode()) from None
    only.send_signal(signal.SIGCONT)
    os.set_blocking(running.stderr.fileno(), True)  # type: ignore[union-attr]
    done = finish(running)
    assert done.status == 0, said.decode() + done.err
    assert contents(str(tmp_path / "s.zarr")) == single


def readable(stream: object) -> bool:
    import select

    return bool(select.select([stream], [], [], 0.05)[0])


def test_with_no_worker_left_the_run_says_so_waits_and_ends_whole(
    dask: Dask, clips: Path, single: dict[str, object], tmp_path: Path
) -> None:
    last = dask.worker("--no-nanny", env=HANGING)
    running = start(*features(dask, clips, "--worker-wait", "8"), cwd=tmp_path)
    wait_until(lambda: len(list(tmp_path.glob("s.zarr/features/c.*"))) >= 4)
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


def test_one_sigterm_ends_a_run_that_has_no_worker_left(
    dask: Dask, clips: Path, tmp_path: Path
) -> None:
    last = dask.worker("--no-nanny", env=HANGING)
    running = start(*features(dask, clips), cwd=tmp_path)
    wait_until(lambda: len(list(tmp_path.glob("s.zarr/features/c.*"))) >= 4)
    last.kill()
    running.send_signal(signal.SIGTERM)
    done = finish(running, timeout_s=120)
    assert done.status == 143, done.err
    assert "clips are left to the next run" in done.err
    assert store.verify(str(tmp_path / "s.zarr")).ok


def test_a_scheduler_that_is_killed_ends_the_run_whole(
    dask: Dask, clips: Path, tmp_path: Path
) -> None:
    dask.worker("--no-nanny", env=HANGING)
    running = start(*features(dask, clips), cwd=tmp_path)
    wait_until(lambda: len(list(tmp_path.glob("s.zarr/features/c.*"))) >= 4)
    dask.processes[0].kill()
    done = finish(running)
    assert done.status == 4, done.err
    assert "scheduler" in done.err
    assert "the run goes on where it stood" in done.err
    assert store.verify(str(tmp_path / "s.zarr")).ok


@pytest.mark.skipif(os.geteuid() != 0, reason="hiding a folder from a process needs root")
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs util-linux' unshare")
def test_a_worker_that_lacks_the_clips_is_refused_by_name(
    dask: Dask, clips: Path, tmp_path: Path
) -> None:
    hide = f'mount -t tmpfs none "{clips}" && exec "$0" "$@"'
    dask.worker("--no-nanny", before=["unshare", "--mount", "sh", "-c", hide])
    wait_until(lambda: dask.joined(1))
    done = run(*features(dask, clips), cwd=tmp_path)
    assert done.status == 1, done.err
    assert "1 of 1 workers cannot take part: tcp://" in done.err
    assert "it does not see the clip" in done.err


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
    wait_until(lambda: dask.joined(1))
    done = run(*features(dask, clips), cwd=tmp_path)
    assert done.status == 1, done.err
    assert "it runs pixels-once 0.0.1 and this run" in done.err


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
