"""The workers of a run are started while its server starts, taken over by its flow, and never left."""

from __future__ import annotations

import gc

import psutil
import pytest

from flows.extract import cluster
from flows.settings.features import FeaturesSettings
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

SETTINGS = FeaturesSettings(store="s.zarr")


def children() -> set[int]:
    """Process ids of this process's worker processes."""
    return {
        child.pid
        for child in psutil.Process().children(recursive=True)
        if "spawn_main" in " ".join(child.cmdline())
    }


def test_a_run_takes_over_the_workers_that_were_started_for_it(monkeypatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    seen = []

    def environment() -> str:
        import os
        import sys

        imported = "flows.extract.batches" in sys.modules
        return f"{os.environ['PREFECT_API_URL']} {imported}"

    before = children()
    with cluster.workers_ahead(SETTINGS, "http://127.0.0.1:9/api", then=seen.append):
        with cluster.dask_cluster(SETTINGS) as arguments:
            made = arguments["cluster"]
            assert seen == [made]
            with made.get_client() as client:
                (answer,) = client.run(environment).values()
            assert answer == "http://127.0.0.1:9/api True"
            assert len(children() - before) == 1, "no second worker was started"
            # A Ctrl-C that arrives in a callback of the garbage collector is lost.
            owners = [getattr(one, "__module__", "") for one in gc.callbacks]
            assert not [owner for owner in owners if owner.startswith("distributed")]
        wait_until(lambda: children() <= before)


@pytest.mark.parametrize("url", ["", "http://127.0.0.1:10/api"], ids=["no run", "another server"])
def test_workers_that_no_run_wants_end(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The server's port was taken, so the run has another address than the workers were given.
    monkeypatch.setenv("PREFECT_API_URL", url)
    before = children()
    with cluster.workers_ahead(SETTINGS, "http://127.0.0.1:9/api", then=lambda made: None):
        if url:
            assert cluster._taken_over(SETTINGS) is None
            assert not cluster._ahead
    wait_until(lambda: children() <= before)
    assert not cluster._ahead


def test_what_a_worker_is_asked_ahead_may_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")

    def fail(made: object) -> None:
        raise RuntimeError("the CNN cannot be loaded")

    ahead = cluster.workers_ahead(SETTINGS, "http://127.0.0.1:9/api", then=fail)
    with ahead, cluster.dask_cluster(SETTINGS) as arguments:
        assert arguments["cluster"].workers
