"""A run that finds nothing to do: what it must not start and not import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import store
from flows.extract.request import stage_of
from flows.extract.setup import run_idle
from flows.settings.features import FeaturesSettings
from pipeline.features.catalog import discover
from tests.features.clips import write_numbered_clip
from tests.flows import running

_CLIPS = 1000
_WATCHED = """
import json, multiprocessing.util, subprocess, sys
started = []
def hook(event, arguments):
    if event == "subprocess.Popen":
        started.append([str(word) for word in arguments[1]])
sys.addaudithook(hook)
spawn = multiprocessing.util.spawnv_passfds
def spied(path, words, fds):
    started.append([str(word) for word in words])
    return spawn(path, words, fds)
multiprocessing.util.spawnv_passfds = spied
from flows.cli.main import main
status = main(sys.argv[1:])
print(json.dumps({"status": status, "started": started, "modules": sorted(sys.modules)}))
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of a thousand clips and a store in which all of them are ready, by InceptionV3."""
    folder = tmp_path_factory.mktemp("thousand")
    clips, url = folder / "clips", folder / "clips.zarr"
    for label in ("Jump", "Walk"):
        (clips / label).mkdir(parents=True)
    first = clips / "Jump" / "v_Jump_g01_c0000.mp4"
    write_numbered_clip(first, frames=4)
    for number in range(1, _CLIPS):
        label = ("Jump", "Walk")[number % 2]
        os.link(first, clips / label / f"v_{label}_g{number % 25 + 1:02d}_c{number:04d}.mp4")
    settings = FeaturesSettings(videos=str(clips), store=str(url), weights="random")
    spec, stage, _ = stage_of(settings, None)
    layout = store.Layout(steps=spec.sampling.steps, shape=spec.shape, dtype=spec.dtype)
    store.create(url, layout=layout, spec=spec.to_dict(), fingerprint=spec.fingerprint, software={})
    with store.Writer.acquire(str(url), owner="test") as writer:
        catalog = discover(str(clips))
        rows = writer.append(catalog.drop(columns="path"))
        writer.set(rows, frames_decoded=4)
        writer.mark(rows, store.READY)
        writer.set_attributes(classes=["Jump", "Walk"], first_stage={"weights": stage.weights})
        writer.flush()
    return clips, url


def test_a_run_with_nothing_to_do_starts_no_dask_worker_and_imports_no_engine(prefect_api, done):
    clips, url = done
    ended = subprocess.run(
        [sys.executable, "-c", _WATCHED, "features", "--videos", clips, "--store", url, "--json"],
        env=running.environment(),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert ended.returncode == 0, ended.stderr
    summary, seen = (json.loads(line) for line in ended.stdout.splitlines()[-2:])
    assert (seen["status"], summary["outcome"], summary["clips"]) == (0, "nothing to do", _CLIPS)
    engines = {"tensorflow", "keras", "openvino", "jax", "torch", "cv2", "av", "distributed"}
    assert sorted(engines & set(seen["modules"])) == []
    # A driver is asked for GPUs (`nvidia-smi`); no worker, scheduler or server is started.
    assert [words for words in seen["started"] if "nvidia-smi" not in words[0]] == []


def test_without_a_server_a_run_with_nothing_to_do_starts_none_and_imports_no_prefect(
    done: tuple[Path, Path], tmp_path: Path
) -> None:
    clips, url = done
    # Not even one that someone else runs on the usual port is looked for.
    code = "import flows.server.lifetime as lifetime\nlifetime.USUAL_URL = ''\n" + _WATCHED
    environment = running.environment({"PREFECT_HOME": str(tmp_path)})
    environment.pop("PREFECT_API_URL", None)
    ended = subprocess.run(
        [sys.executable, "-c", code, "features", "--videos", clips, "--store", url, "--json"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert ended.returncode == 0, ended.stderr
    summary, seen = (json.loads(line) for line in ended.stdout.splitlines()[-2:])
    assert (seen["status"], summary["outcome"], summary["clips"]) == (0, "nothing to do", _CLIPS)
    assert summary["rows"] == {"pending": 0, "ready": _CLIPS, "failed": 0, "gone": 0}
    assert [words for words in seen["started"] if "nvidia-smi" not in words[0]] == []
    assert not {"prefect", "distributed", "keras"} & set(seen["modules"])


def test_any_doubt_is_left_to_the_flow(done: tuple[Path, Path], tmp_path: Path) -> None:
    clips, url = done
    settings = FeaturesSettings(videos=str(clips), store=str(url))
    summary = run_idle(settings)
    assert summary is not None
    assert summary.headline() == f"nothing to do: all {_CLIPS} clips are in {url}"
    assert run_idle(replace(settings, store=str(tmp_path / "new.zarr"))) is None
    assert run_idle(replace(settings, dry_run=True)) is None
    for no_folder in ("x" * 300, str(tmp_path / "absent"), "s3://bucket/clips"):
        assert run_idle(replace(settings, videos=no_folder)) is None
    with store.Writer.acquire(str(url), owner="another run"):
        assert run_idle(settings) is None
    first = clips / "Jump" / "v_Jump_g01_c0000.mp4"
    for change in (os.utime, Path.unlink):
        change(first)
        assert run_idle(settings) is None
