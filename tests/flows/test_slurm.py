"""A run whose workers are jobs of Slurm: they are queued, cancelled, refused, and end with the run."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest

import store
from tests.flows.clusters import FRAMES, HANGING
from tests.flows.clusters import single as single
from tests.flows.running import finish, run, start
from tests.flows.sameness import contents
from tests.flows.slurm import MISSING, Slurm
from tests.flows.slurm import slurm as slurm
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        bool(MISSING), reason="Slurm is not installed (apt-get install slurm-wlm munge)"
    ),
]


@pytest.fixture(autouse=True)
def dask_jobqueue() -> None:
    pytest.importorskip("dask_jobqueue", reason="needs pip install dask-jobqueue")


def features(clips: Path, folder: Path, *more: str, queue: str = "main") -> list[str]:
    """The command; two jobs of two workers each, whose clips `_c04` hang until `calm` is there."""
    hang = f"export PIXELS_ONCE_FAULTS={json.dumps(HANGING['PIXELS_ONCE_FAULTS'])}"
    options = {
        "queue": queue,
        "cores": 2,
        "processes": 2,
        "memory": "4GB",
        "walltime": "01:00:00",
        "n_workers": 4,
        "interface": "lo",
        "scheduler_options": {"dashboard_address": "127.0.0.1:0"},
        "death_timeout": 120,
        "local_directory": str(folder / "spill"),
        "log_directory": str(folder / "jobs"),
        "job_script_prologue": [f"test -e {folder / 'calm'} || {hang}"],
        "python": sys.executable,
    }
    lines = [f"{name} = {_toml(value)}" for name, value in options.items()]
    (folder / "slurm.toml").write_text(
        '[features]\ncluster = "dask_jobqueue.SLURMCluster"\n'
        "[features.cluster_options]\n" + "\n".join(lines)
    )
    words = ["features", "--videos", str(clips), "--store", "s.zarr", *FRAMES]
    return [*words, "--config", "slurm.toml", *more]


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_toml(each)}" for name, each in value.items()) + " }"
    return json.dumps(value)


def logs(folder: Path) -> str:
    """The end of what the jobs logged, for a test that fails."""
    return "\n".join(path.read_text()[-2000:] for path in sorted(folder.glob("jobs/*")))


def chunks(folder: Path) -> int:
    return len(list(folder.glob("s.zarr/features/c.*")))


def test_jobs_that_are_cancelled_in_mid_run_are_asked_for_again(
    slurm: Slurm, clips: Path, single: dict[str, object], tmp_path: Path
) -> None:
    running = start(*features(clips, tmp_path, "--json"), cwd=tmp_path, env=slurm.env)
    wait_until(lambda: chunks(tmp_path) >= 6, running, limit_s=400)
    first, second = slurm.jobs("RUNNING")
    slurm.command("scancel", first)
    wait_until(lambda: first not in slurm.jobs())
    (tmp_path / "calm").touch()
    slurm.command("scancel", second)
    done = finish(running, timeout_s=400)
    assert done.status == 0, done.err + logs(tmp_path)
    assert "Traceback" not in done.err
    assert done.json["ready"] == 12
    assert "submitted again" in done.err
    assert "others are asked for in their place" in done.err
    assert contents(str(tmp_path / "s.zarr")) == single
    assert slurm.jobs() == []


def test_a_run_that_is_asked_to_stop_leaves_no_job(
    slurm: Slurm, clips: Path, single: dict[str, object], tmp_path: Path
) -> None:
    words = features(clips, tmp_path)
    running = start(*words, cwd=tmp_path, env=slurm.env)
    wait_until(lambda: chunks(tmp_path) >= 6, running, limit_s=400)
    running.send_signal(signal.SIGTERM)
    done = finish(running, timeout_s=400)
    assert done.status == 143, done.err
    assert slurm.jobs() == []
    assert store.verify(str(tmp_path / "s.zarr")).ok
    (tmp_path / "calm").touch()
    again = run(*words, cwd=tmp_path, env=slurm.env)
    assert again.status == 0, again.err + logs(tmp_path)
    assert contents(str(tmp_path / "s.zarr")) == single


def test_a_job_that_slurm_refuses_is_said_in_its_own_words(
    slurm: Slurm, clips: Path, tmp_path: Path
) -> None:
    words = features(clips, tmp_path, queue="nowhere")
    done = run(*words, cwd=tmp_path, env=slurm.env, timeout_s=120)
    assert done.status == 4, done.err
    assert "invalid partition specified: nowhere" in done.err
    assert "Traceback" not in done.err
