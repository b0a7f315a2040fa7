"""Two runs on one store, a reader while a run writes, and a worker that outlives its run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import psutil
import pytest

import store
from tests.faults.breaking import (
    CLIPS,
    Moment,
    assert_equal,
    assert_gone,
    chunks,
    command_line,
    family,
    features,
    finished,
    finished_here,
    wait_for,
    workers,
)
from tests.flows import running
from tests.waiting import wait_until


@pytest.mark.long
def test_a_second_run_is_told_who_holds_the_store_and_a_reader_sees_whole_rows(
    clips, whole, tmp_path
):
    url = tmp_path / "clips.zarr"
    process = features(clips, url)
    wait_for(Moment(chunks=1, delay_s=0), url, process)
    for worker in workers(process.pid):
        worker.suspend()  # so that the first run is still there while the second is asked
    try:
        refused = finished_here(clips, url)
        assert refused.status == 1
        assert f"features (process {process.pid} on {os.uname().nodename}, since 20" in refused.err
        assert "Traceback" not in refused.err
        skipped = finished_here(clips, url, "--if-busy", "skip")
        assert (skipped.status, skipped.json["outcome"]) == (0, "skipped")
        waiting = features(clips, url, "--if-busy", "wait")
    finally:
        for worker in workers(process.pid):
            worker.resume()
    seen = set()
    while process.poll() is None:
        now = store.open(str(url))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", store.StoreWarning)
            found = now.load()
        np.testing.assert_array_equal(found.features, whole["features"][found.rows])
        np.testing.assert_array_equal(found.mask, whole["mask"][found.rows])
        seen.add(len(found))
    assert running.finish(process).status == 0
    assert max(seen) > 0
    waited = running.finish(waiting)
    assert (waited.status, waited.json["outcome"]) == (0, "nothing to do"), waited.err
    assert_equal(url, whole)


CLUSTER = """
import distributed, sys
if __name__ == "__main__":
    cluster = distributed.LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None)
    print(cluster.scheduler_address, flush=True)
    sys.stdin.read()
"""


@pytest.mark.long
def test_a_late_writer_on_an_external_worker_whose_client_died_is_fenced_off(
    clips, whole, tmp_path
):
    url = tmp_path / "clips.zarr"
    script = tmp_path / "cluster.py"
    script.write_text(CLUSTER)
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
        late = workers(cluster.pid)
        suspended(late)
        while any((url / "features").glob("*.partial")):
            # Past the fence already: such a write ends when it goes on, and is what digests are for.
            for worker in late:
                worker.resume()
            time.sleep(0.01)
            suspended(late)
        before = chunks(url)
        process.kill()
        process.communicate()
        assert before < CLIPS // 4  # it stands in the middle of a batch
        ended = finished(clips, url)  # on workers of its own
        assert ended.status == 0, ended.err
        assert_equal(url, whole)
        stamps = {p: p.stat().st_mtime_ns for p in url.rglob("c.*")}
        for worker in late:
            worker.resume()
        # It finishes what it had in hand, is refused, and rests.
        wait_until(lambda: all(quiet(worker) for worker in late))
        assert {p: p.stat().st_mtime_ns for p in url.rglob("c.*")} == stamps
        assert_equal(url, whole)
    finally:
        cluster.kill()
        cluster.communicate()


def suspended(processes: list[psutil.Process]) -> None:
    """Returns when all of them stand still."""
    for process in processes:
        process.suspend()
    wait_until(lambda: all(p.status() == psutil.STATUS_STOPPED for p in processes))


def quiet(worker: psutil.Process) -> bool:
    """Whether a resumed worker has spent no CPU time for a while."""
    spent = sum(worker.cpu_times()[:2])
    psutil.wait_procs([worker], timeout=3)
    return sum(worker.cpu_times()[:2]) - spent < 0.1


@pytest.mark.long
def test_a_killed_run_takes_its_temporary_server_and_all_children_with_it(clips, tmp_path):
    url = tmp_path / "clips.zarr"
    process = features(clips, url, env={"PREFECT_API_URL": ""})
    wait_for(Moment(chunks=0, delay_s=0), url, process)
    everyone = family(process.pid)
    assert any("flows.server" in command_line(p) for p in everyone)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert_gone(everyone)
