"""Other people's Dask clusters: by address, by class path, with certificates; what a worker is asked."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import store
from flows.extract.worker_checks import Check, readable_sample
from tests.flows.clusters import FRAMES, Dask, features
from tests.flows.clusters import dask as dask
from tests.flows.clusters import single as single
from tests.flows.running import run
from tests.flows.sameness import contents


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
        assert refused.status == 1, refused.err
        assert "needs the certificates" in refused.err
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
