"""A worker that was left out at the start is all that remains."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

import store
from tests.flows.clusters import HANGING, Dask, dask, features, single
from tests.flows.running import finish, start
from tests.flows.sameness import contents
from tests.waiting import wait_until

__all__ = ["dask", "single"]  # fixtures


def only_the_other_is_left(dask: Dask, clips: Path, folder: Path) -> subprocess.Popen[str]:
    """A run whose worker was killed, while the one that it did not ask is well again."""
    left_out = dask.worker("--no-nanny")
    wait_until(lambda: dask.joined(1))
    taking_part = dask.worker("--no-nanny", env=HANGING)
    wait_until(lambda: dask.joined(2))
    left_out.send_signal(signal.SIGSTOP)
    running = start(*features(dask, clips, "--worker-wait", "60"), cwd=folder)
    wait_until(lambda: len(list(folder.glob("s.zarr/features/c.*"))) >= 4)
    left_out.send_signal(signal.SIGCONT)
    taking_part.kill()
    return running


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_batches_of_workers_that_have_left_go_to_one_that_answers_again(
    dask: Dask, clips: Path, single: dict[str, object], tmp_path: Path
) -> None:
    done = finish(only_the_other_is_left(dask, clips, tmp_path))
    assert done.status == 0, done.err
    assert "left out until they do" in done.err
    assert "have left, the batch is submitted again" in done.err
    assert contents(str(tmp_path / "s.zarr")) == single


@pytest.mark.long
@pytest.mark.timeout(600)
def test_one_ctrl_c_ends_a_run_whose_workers_have_left(
    dask: Dask, clips: Path, tmp_path: Path
) -> None:
    running = only_the_other_is_left(dask, clips, tmp_path)
    running.send_signal(signal.SIGINT)
    done = finish(running, timeout_s=120)
    assert done.status == 130, done.err
    assert store.verify(str(tmp_path / "s.zarr")).ok
