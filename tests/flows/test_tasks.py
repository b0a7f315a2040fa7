"""A task of several batches: how many, what it reports, and what is lost with its worker."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

import store
from flows.extract import tasks
from flows.extract.batches import request_stop
from flows.extract.cutting import batches_of
from flows.extract.progress import Curve
from flows.extract.tasks import MOST_BATCHES, batches_per_task
from flows.extract.values import name_of
from pipeline.features.stage import Stage
from tests.flows.clusters import HANGING, Dask, features
from tests.flows.clusters import dask as dask
from tests.flows.clusters import single as single
from tests.flows.running import finish, start_code
from tests.flows.sameness import contents
from tests.store.stores import clips as clips_of
from tests.store.stores import create
from tests.waiting import wait_until

RUN = "a run that is stopped"  # for as long as this process lives


@pytest.mark.parametrize("threads", [1, 2, 16, 128])
@pytest.mark.parametrize("total", [1, 7, 64, 157, 1563, 15_625])
def test_the_batches_of_a_run_are_given_out_whole_in_few_tasks_that_end_together(total, threads):
    left, sizes = total, []
    while left:
        sizes.append(min(left, batches_per_task(total, left, threads)))
        left -= sizes[-1]
    assert sum(sizes) == total
    assert max(sizes) <= MOST_BATCHES
    assert sizes == sorted(sizes, reverse=True)
    if total < 128:
        assert set(sizes) == {1}, "as ever"
    # What one worker may still have to do while all others are idle.
    assert sizes[-1] == 1 or len(sizes) == 1
    if total >= 1024:  # the last are small, so that no worker is left alone with much
        assert len(sizes) <= total / MOST_BATCHES + 16 * threads


def test_a_million_clips_are_about_a_thousand_tasks() -> None:
    total = left = -(-1_000_000 // 64)
    count = 0
    while left > 0:
        left -= batches_per_task(total, left, threads=16)
        count += 1
    assert count < 1_300


@pytest.mark.parametrize("hours", [0.01, 1, 100])
def test_the_curve_of_a_run_of_any_length_stays_small(hours: float) -> None:
    curve = Curve()
    for number in range(int(hours * 1800)):
        curve.add(2.0 * number, number)
    curve.add(hours * 3600, 10**6, last=True)
    seconds = [point[0] for point in curve.points]
    assert len(seconds) <= 513
    assert seconds == sorted(seconds)
    assert curve.points[-1] == (hours * 3600, 10**6)
    apart = [b - a for a, b in pairwise(seconds[1:-1])]
    assert max(apart, default=1) <= 3 * min(apart, default=1)


def test_a_task_that_was_withdrawn_begins_no_batch(tmp_path: Path) -> None:
    url = create(str(tmp_path / "clips.zarr"))
    with store.Writer.acquire(url, owner="test") as writer:
        rows = writer.append(clips_of(10)).tolist()
        stage = Stage(spec={}, weights="")
        batches = list(batches_of(rows, writer, stage, lambda row: f"{row}.mp4", RUN))
    assert len(batches) > 1
    tasks.withdraw(RUN, [3])
    assert tasks.extract_batches.fn("name", 3, tasks.packed(batches)) == []
    request_stop(RUN)
    assert tasks.extract_batches.fn("name", 4, tasks.packed(batches)) == []
    assert name_of(batches).startswith(f"batches 0 to {len(batches) - 1} · ")
    assert name_of(batches).endswith(" and 9 more")


SIX_A_TASK = """
import sys
from flows.extract import loop
loop.batches_per_task = lambda total, left, threads: 6
from flows.cli.main import main
sys.exit(main({words!r}))
"""


@pytest.mark.long
@pytest.mark.timeout(600)
def test_of_a_task_whose_worker_dies_only_the_batch_in_work_is_made_again(
    dask: Dask, clips: Path, single: dict[str, object], tmp_path: Path
) -> None:
    url = tmp_path / "s.zarr"
    hanging = dask.worker("--no-nanny", env=HANGING)
    running = start_code(SIX_A_TASK.format(words=features(dask, clips)), cwd=tmp_path)
    # Two tasks of six clips, of which each soon comes to a clip that hangs.
    wait_until(lambda: store.exists(url) and store.open(url).counts()["ready"] >= 2)
    wait_until(lambda: len(written(url)) == store.open(url).counts()["ready"])
    before = written(url)
    hanging.kill()
    dask.worker("--no-nanny")
    done = finish(running)
    assert done.status == 0, done.err
    assert "submitted again" in done.err
    assert contents(str(url)) == single
    after = written(url)
    assert {name: after[name] for name in before} == before, "what was reported is not made again"


def written(url: Path) -> dict[str, int]:
    """The chunks of features, and when each was written."""
    return {path.name: path.stat().st_mtime_ns for path in (url / "features").glob("c.*")}
