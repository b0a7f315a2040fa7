"""SIGKILL at random moments: the next run finishes, and nothing is lost, doubled or left behind."""

from __future__ import annotations

import pytest

from tests.faults.breaking import (
    Moment,
    assert_equal,
    assert_gone,
    assert_no_shared_memory,
    chunks,
    command_line,
    family,
    features,
    finished,
    finished_here,
    shared_memory,
    wait_for,
    workers,
)
from tests.flows import running

TEN = range(10)


def kill_worker(clips, url, seed) -> None:
    """A run whose worker is killed; the run itself finishes."""
    process = features(clips, url)
    wait_for(Moment.drawn(seed), url, process, already=chunks(url))
    everyone = family(process.pid)
    for worker in workers(process.pid):
        worker.kill()
    ended = running.finish(process)
    assert ended.status == 0, ended.err
    assert ended.json["outcome"] == "done"
    assert_gone(everyone)


def kill_flow(clips, url, seed, *, and_workers: bool = False) -> None:
    """A run whose flow process is killed, and its workers with it or left to notice."""
    process = features(clips, url)
    wait_for(Moment.drawn(seed), url, process, already=chunks(url))
    everyone = family(process.pid)
    process.kill()
    for worker in everyone[1:] if and_workers else ():
        if "multiprocessing.spawn" in command_line(worker):
            worker.kill()
    process.communicate()
    assert process.returncode == -9
    assert_gone(everyone)


@pytest.mark.slow
@pytest.mark.parametrize("kills", [1, pytest.param(3, marks=pytest.mark.long)])
def test_kills_in_a_row_lose_nothing(clips, whole, tmp_path, kills):
    url, shared = tmp_path / "clips.zarr", shared_memory()
    if kills > 1:
        kill_flow(clips, url, 100)
        kill_worker(clips, url, 102)
    kill_flow(clips, url, 101, and_workers=True)
    assert finished_here(clips, url).status == 0
    assert_equal(url, whole)
    assert_no_shared_memory(shared)


@pytest.mark.long
@pytest.mark.parametrize("seed", TEN)
def test_a_killed_worker_costs_its_run_nothing(clips, whole, tmp_path, seed):
    url, shared = tmp_path / "clips.zarr", shared_memory()
    kill_worker(clips, url, seed)
    assert_equal(url, whole)
    assert_no_shared_memory(shared)


@pytest.mark.long
@pytest.mark.parametrize("and_workers", [False, True], ids=["flow", "flow and workers"])
@pytest.mark.parametrize("seed", TEN)
def test_a_killed_run_is_finished_by_the_next(clips, whole, tmp_path, seed, and_workers):
    url, shared = tmp_path / "clips.zarr", shared_memory()
    kill_flow(clips, url, seed, and_workers=and_workers)
    ended = finished(clips, url)
    assert ended.status == 0, ended.err
    assert_equal(url, whole)
    assert_no_shared_memory(shared)
