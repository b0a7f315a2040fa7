"""A cluster by class path: what it is refused for, and its lost workers, on a real one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import distributed
import pytest
from distributed.deploy.spec import ProcessInterface

from flows.extract import named_cluster
from flows.extract.named_cluster import LostJobs
from flows.settings.features import FeaturesSettings
from pipeline.errors import ConfigError, ServiceUnavailable
from tests.flows.clusters import until


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[distributed.LocalCluster]:
    monkeypatch.setattr(named_cluster, "LOST_AFTER_S", 0.2)
    monkeypatch.setattr(named_cluster, "_LOOK_EVERY_S", 0.0)
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
    ) as cluster:
        yield cluster


def addresses(cluster: distributed.LocalCluster) -> list[str]:
    return [worker.address for worker in cluster.scheduler.workers.values()]


def leave(cluster: distributed.LocalCluster, client: distributed.Client, jobs: LostJobs) -> None:
    """Every worker leaves, as if its job had been cancelled."""
    until(lambda: len(cluster.scheduler_info["workers"]) == 2)
    jobs.keep_up()
    client.retire_workers(addresses(cluster))
    until(lambda: not addresses(cluster))


def test_lost_workers_are_replaced_but_not_without_end(cluster: distributed.LocalCluster) -> None:
    said: list[str] = []
    done = [0]
    jobs = LostJobs(cluster, done=lambda: done[0], say=said.append)
    with distributed.Client(cluster, set_as_default=False) as client:
        for done[0] in (0, 1, 1, 1):
            leave(cluster, client, jobs)
            until(lambda: len(addresses(cluster)) == 2, jobs.keep_up)
        assert len(said) >= 4
        assert all("others are asked for in their place" in line for line in said), said
        said.clear()
        leave(cluster, client, jobs)
        until(lambda: any("no more are" in line for line in said), jobs.keep_up)
        jobs.keep_up()
        assert addresses(cluster) == []


def test_a_cluster_that_replaces_by_itself_is_let_alone() -> None:
    LostJobs(None, done=lambda: 0, say=print).keep_up()
    LostJobs(object(), done=lambda: 0, say=print).keep_up()


class Refused:
    def __init__(self, **options: Any) -> None:
        raise RuntimeError("Command exited with 1\nstderr:\nsbatch: error: no such queue\n")


@pytest.mark.parametrize(
    ("path", "options", "error", "said"),
    [
        ("distributed.SpecCluster", {"colour": 3}, ConfigError, "does not take its options"),
        ("distributed.Nowhere", {}, ConfigError, "cannot be imported"),
        (f"{__name__}.Refused", {}, ServiceUnavailable, "stderr: sbatch: error: no such queue"),
    ],
)
def test_what_cannot_start_is_one_sentence(
    path: str, options: dict[str, Any], error: type[Exception], said: str
) -> None:
    settings = FeaturesSettings(videos=".", cluster=path, cluster_options=options)
    with pytest.raises(error, match=said) as refused:
        named_cluster.named_cluster(settings)
    assert "\n" not in str(refused.value)


class RefusedJob(ProcessInterface):  # type: ignore[misc]
    async def start(self) -> None:
        raise RuntimeError("Command exited with 1\nstderr:\nsbatch: error: no such queue\n")


def refusing() -> distributed.SpecCluster:
    """A real cluster with two jobs, of which none is taken."""
    options = {"host": "127.0.0.1", "dashboard": False}
    cluster = distributed.SpecCluster(
        worker={"cls": RefusedJob},
        scheduler={"cls": distributed.Scheduler, "options": options},
        silence_logs=50,
    )
    cluster.scale(2)  # as dask_jobqueue does
    until(lambda: cluster.workers)
    return cluster


def test_a_cluster_whose_jobs_are_refused_says_why_in_its_own_words() -> None:
    path = f"{__name__}.refusing"
    cluster = named_cluster.named_cluster(FeaturesSettings(videos=".", cluster=path))
    said = "refusing does not start .*stderr: sbatch: error: no such queue"
    with pytest.raises(ServiceUnavailable, match=said), named_cluster.started(cluster, path):
        pass
    assert cluster.status == distributed.Status.closed
