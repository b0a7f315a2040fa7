"""A full disk, a read-only or vanished store, a right that is taken away: one sentence, status 4,
a store that opens, and a next run that goes on."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import store
from tests.faults.breaking import (
    CLIPS,
    Moment,
    arrays,
    assert_equal,
    assert_gone,
    chunks,
    family,
    features,
    finished,
    finished_here,
    wait_for,
)
from tests.flows import running
from tests.waiting import wait_until


def one_sentence(ended: running.Finished, words: str) -> bool:
    """Whether the run ended with status 4 and said so in one line, without a traceback."""
    last = ended.err.strip().splitlines()[-1]
    assert ended.status == 4, ended.err
    assert "Traceback" not in ended.err
    return last.startswith("pixels-once features: ") and words in last


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system with room for about half of the store."""
    folder = Path(tempfile.mkdtemp())
    size = CLIPS * 4 * 64 * 64 * 3 // 2 // 1024 + 200
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        folder.rmdir()
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
    folder.rmdir()


@pytest.mark.long
def test_a_disk_that_fills_up(clips, whole, small_disk):
    url = small_disk / "clips.zarr"
    before = finished_here(clips, url)
    assert one_sentence(before, "MiB free: free some space")  # nothing was begun
    assert not url.exists()
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    process = features(clips, url)
    wait_for(Moment(chunks=1, delay_s=0), url, process)
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    everyone = family(process.pid)
    ended = running.finish(process)
    assert one_sentence(ended, "is full: free some space and run again")
    assert_gone(everyone)
    found = store.open(str(url))
    assert len(found.load()) == found.counts()["ready"]
    ballast.unlink()
    again = finished(clips, url)
    assert again.status == 0, again.err
    assert_equal(url, whole)


@pytest.mark.long
def test_a_store_that_vanishes(clips, tmp_path):
    url = tmp_path / "clips.zarr"
    process = features(clips, url)
    wait_for(Moment(chunks=1, delay_s=0), url, process)
    everyone = family(process.pid)
    url.rename(tmp_path / "elsewhere")
    ended = running.finish(process)
    assert one_sentence(ended, "has vanished: bring it back, or make a new store")
    assert_gone(everyone)
    # A write that was under way may have made its folder again, which is no store.
    assert not store.exists(str(url))
    shutil.rmtree(url, ignore_errors=True)
    (tmp_path / "elsewhere").rename(url)
    assert len(store.open(str(url)).load()) == store.open(str(url)).counts()["ready"]
    assert finished_here(clips, url).status == 0
    assert store.verify(str(url)).ok


@pytest.mark.slow
def test_a_read_only_store(clips, whole_store, small_disk):
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    url = Path(shutil.copytree(whole_store, small_disk / "clips.zarr"))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert one_sentence(finished_here(clips, url), "is read-only: mount it writable")
    assert len(store.open(str(url)).load()) == CLIPS


def bound_by_modes() -> None:
    """Give up root's right to pass over the modes of files and folders, for whatever is run next."""
    drop_from_bounding_set, pass_over_modes, read_anything = 24, 1, 2
    for capability in (pass_over_modes, read_anything):
        assert ctypes.CDLL(None).prctl(drop_from_bounding_set, capability, 0, 0, 0) == 0


def unprivileged() -> dict[str, Any]:
    """Options of `Popen` for a process that the modes of files bind: of another user, where root asks
    and others may run this Python; else of root without its right over modes."""
    if os.getuid() != 0:
        return {}
    nobody = {"user": 65534, "group": 65534, "extra_groups": []}
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        subprocess.run(
            [sys.executable, "-c", "import flows"], cwd=running.ROOT, check=True, **nobody
        )
        return nobody
    return {"preexec_fn": bound_by_modes}


@pytest.mark.long
def test_a_right_that_is_taken_away_from_an_unprivileged_user(clips, whole, prefect_api):
    home = Path(tempfile.mkdtemp())  # pytest's own folders are closed to others
    nobody = unprivileged()
    try:
        home.chmod(0o755)
        mine = home / "mine"
        shutil.copytree(clips, mine / "clips")
        if "user" in nobody:
            for path in (mine, *mine.rglob("*")):
                os.chown(path, 65534, 65534)
        env = {name: str(mine) for name in ("HOME", "TMPDIR", "PREFECT_HOME")}
        url = mine / "clips.zarr"
        process = features(mine / "clips", url, env=env, **nobody)
        wait_for(Moment(chunks=1, delay_s=0), url, process)
        (url / "features").chmod(0o555)
        ended = running.finish(process)
        assert one_sentence(ended, "may not be written or read: check its permissions and owner")
        found = store.open(str(url))
        assert len(found.load()) == found.counts()["ready"] < CLIPS
        (url / "features").chmod(0o755)
        again = finished(mine / "clips", url, env=env, **nobody)
        assert again.status == 0, again.err
        # The copies have times of their own; all else is what root's uninterrupted run made.
        made = arrays(url)
        for name in set(whole) - {"mtime_ns"}:
            np.testing.assert_array_equal(made[name], whole[name], err_msg=name)
    finally:
        shutil.rmtree(home)


DYING = """
import importlib.util, os, signal, sys

def die(*values, **named):
    os.kill(os.getpid(), signal.SIGKILL)

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name != "pipeline.features.filling" or "spawn_main" not in " ".join(sys.orig_argv):
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module
        def exec_module(module):
            run(module)
            {dies}
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Finder())
"""
"""A `sitecustomize` by which a worker is killed, as on a machine that is out of memory."""


@pytest.mark.long
@pytest.mark.parametrize(
    ("dies", "words"),
    [
        ("module.CnnThreads._frames_read = die", "lost its worker 3 times"),
        ("die()", "end while they start"),
    ],
    ids=["at its first frames", "as it starts"],
)
def test_a_worker_that_dies_again_and_again_ends_the_run(clips, whole, tmp_path, dies, words):
    url = tmp_path / "clips.zarr"
    killer = tmp_path / "site"
    killer.mkdir()
    (killer / "sitecustomize.py").write_text(DYING.replace("{dies}", dies))
    env = {"PYTHONPATH": f"{running.ROOT}{os.pathsep}{killer}"}
    ended = finished(clips, url, env=env)
    assert one_sentence(ended, words)
    assert store.open(str(url)).counts()["pending"] == CLIPS
    assert chunks(url) == 0
    assert finished_here(clips, url).status == 0
    assert_equal(url, whole)


@pytest.mark.long
def test_a_scheduler_that_goes_away_ends_the_run(clips, prefect_api, tmp_path):
    url = tmp_path / "clips.zarr"
    code = (
        "import distributed, sys\n"
        "if __name__ == '__main__':\n"
        "    c = distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None)\n"
        "    print(c.scheduler_address, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    script = tmp_path / "cluster.py"
    script.write_text(code)
    cluster = subprocess.Popen(
        [sys.executable, str(script)],
        env=running.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        address = cluster.stdout.readline().strip()
        process = features(clips, url, "--scheduler", address)
        wait_for(Moment(chunks=1, delay_s=0), url, process)
        cluster.kill()
        ended = running.finish(process)
        assert one_sentence(ended, "scheduler")
        assert store.holder(str(url)) is None
        assert len(store.open(str(url)).load()) == store.open(str(url)).counts()["ready"]
    finally:
        cluster.kill()
        cluster.communicate()
    wait_until(lambda: cluster.poll() is not None)
