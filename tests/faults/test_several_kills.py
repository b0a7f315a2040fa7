"""SIGKILL in a run that fills several stores: the next run finishes, and each is as if made alone."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.faults.breaking import (
    BATCH,
    STEPS,
    Moment,
    arrays,
    assert_equal,
    assert_gone,
    assert_no_shared_memory,
    chunks,
    family,
    shared_memory,
    wait_for,
    workers,
)
from tests.features import own_models
from tests.features.own_models import toml
from tests.flows import running
from tests.sharing import made_once

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

MODELS = ("frames", "numbers.onnx", "colours.onnx")
NAMES = ("frames", "numbers", "colours")
MOMENTS = (
    Moment(chunks=0, delay_s=0.05),
    Moment(chunks=3, delay_s=0.0),
    Moment(chunks=7, delay_s=0.1),
)
Whole = dict[str, dict[str, np.ndarray]]


def words(clips: Path, backbone: str) -> tuple[str, ...]:
    return (
        "features", "--videos", str(clips), "--backbone", backbone,
        "--store", "{backbone}.zarr", "--frames", str(STEPS), "--batch", str(BATCH), "--json",
    )  # fmt: skip


def write_models(folder: Path) -> None:
    toml(own_models.numbers(folder / "numbers.onnx", window=4), 'scale = "1/255"\n')
    toml(own_models.colours(folder / "colours.onnx"), 'scale = "1/255"\ndtype = "float32"\n')


@pytest.fixture(scope="module")
def whole(prefect_api: str, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """The arrays of the three stores, each made by a run of its own."""

    def make(folder: Path) -> None:
        write_models(folder)
        for backbone in MODELS:
            made = running.run(*words(clips, backbone), cwd=folder)
            assert made.status == 0, made.err

    folder = made_once(tmp_path_factory, "several alone", make)
    return {name: arrays(folder / f"{name}.zarr") for name in NAMES}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_models(tmp_path)
    return tmp_path


def begin(clips: Path, folder: Path) -> subprocess.Popen[str]:
    return running.start(*words(clips, ",".join(MODELS)), cwd=folder)


def require_whole(clips: Path, folder: Path, whole: Whole) -> None:
    """The next run finishes whatever is left, and every store is as if made alone."""
    ended = running.finish(begin(clips, folder))
    assert ended.status == 0, ended.err
    for name in NAMES:
        assert_equal(folder / f"{name}.zarr", whole[name])


@pytest.mark.parametrize("moment", MOMENTS, ids=repr)
def test_a_killed_run_is_finished_by_the_next(
    clips: Path, whole: Whole, folder: Path, moment: Moment
) -> None:
    shared, process = shared_memory(), begin(clips, folder)
    wait_for(moment, folder / "numbers.zarr", process)
    everyone = family(process.pid)
    process.kill()
    process.communicate()
    assert_gone(everyone)
    require_whole(clips, folder, whole)
    assert_no_shared_memory(shared)


@pytest.mark.parametrize("moment", MOMENTS, ids=repr)
def test_a_killed_worker_costs_the_run_nothing(
    clips: Path, whole: Whole, folder: Path, moment: Moment
) -> None:
    shared, process = shared_memory(), begin(clips, folder)
    wait_for(moment, folder / "colours.zarr", process)
    everyone = family(process.pid)
    for worker in workers(process.pid):
        worker.kill()
    ended = running.finish(process)
    assert ended.status == 0, ended.err
    assert_gone(everyone)
    for name in NAMES:
        assert_equal(folder / f"{name}.zarr", whole[name])
    assert_no_shared_memory(shared)


SEVERAL_A_TASK = """
import sys
from flows.extract import loop
loop.batches_per_task = lambda total, left, threads: 3
from flows.cli.main import main
sys.exit(main({words!r}))
"""


def test_a_worker_killed_in_tasks_of_several_batches_costs_the_run_nothing(
    clips: Path, whole: Whole, folder: Path
) -> None:
    code = SEVERAL_A_TASK.format(words=words(clips, ",".join(MODELS)))
    process = running.start_code(code, cwd=folder)
    wait_for(MOMENTS[1], folder / "colours.zarr", process)
    for worker in workers(process.pid):
        worker.kill()
    ended = running.finish(process)
    assert ended.status == 0, ended.err
    assert "submitted again" in ended.err
    for name in NAMES:
        assert_equal(folder / f"{name}.zarr", whole[name])


def test_kills_in_a_row_at_three_moments_lose_nothing(
    clips: Path, whole: Whole, folder: Path
) -> None:
    for moment in MOMENTS:
        process, url = begin(clips, folder), folder / "frames.zarr"
        wait_for(Moment(chunks=2, delay_s=moment.delay_s), url, process, already=chunks(url))
        everyone = family(process.pid)
        process.kill()
        process.communicate()
        assert_gone(everyone)
    require_whole(clips, folder, whole)
