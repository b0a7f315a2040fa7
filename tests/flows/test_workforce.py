"""Who takes part in a run, seen on a real Dask cluster in this process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import distributed
import pytest

from flows.extract import workforce
from flows.extract.worker_checks import workers_of
from flows.extract.workforce import NoWorkers, Workforce
from tests.flows.clusters import until

ANSWERS: dict[str, str] = {}
"""What each worker says when it is asked; one that is not in here does not answer yet."""

LACKS = "it does not see the clip /clips/a.mp4: mount the clips there"
GO_ON = threading.Event()


def takes_long() -> bool:
    return GO_ON.wait(60)


class Asked:
    async def problem(self, dask_worker: Any = None) -> str:
        while dask_worker.address not in ANSWERS:
            await asyncio.sleep(0.01)
        return ANSWERS[dask_worker.address]


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[distributed.Client]:
    monkeypatch.setattr(workforce, "LOOK_EVERY_S", 0.1)
    monkeypatch.setattr(workforce, "ANSWER_S", 0.3)
    monkeypatch.setattr(workforce, "_PLUGIN_S", 0.3)
    ANSWERS.clear()
    GO_ON.clear()
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client


def test_a_worker_that_turns_out_unfit_is_named_once_and_given_nothing(
    client: distributed.Client,
) -> None:
    fit, unfit = workers_of(client)
    ANSWERS[fit] = ""
    said: list[str] = []
    with Workforce(client, Asked(), wait_s=3, say=said.append) as crew:  # type: ignore[arg-type]
        assert crew.only == [fit]
        ANSWERS[unfit] = LACKS
        until(lambda: any(LACKS in line for line in said), crew.keep_up)
        crew.keep_up()
        assert [unfit in line for line in said if LACKS in line] == [True]
        client.retire_workers([fit])
        until(lambda: not crew.has_any([fit]))
        assert crew.only == []
        assert crew.count == 0
        with pytest.raises(NoWorkers, match=r"1 of 1 workers cannot take part.*does not see"):
            until(lambda: False, crew.keep_up)
    assert not any("memory" in line for line in said)


def test_no_worker_seems_to_leave_while_the_client_looks_at_the_scheduler_too(
    client: distributed.Client,
) -> None:
    async def look_without_end() -> None:  # else every 2 s: as often as in a run of days
        while client.status == "running":
            await client._update_scheduler_info()

    client.loop.add_callback(look_without_end)
    assert {len(workers_of(client)) for _ in range(500)} == {2}


def test_work_that_no_worker_begins_is_told_from_work_that_takes_long(
    client: distributed.Client,
) -> None:
    ANSWERS.update(dict.fromkeys(workers_of(client), ""))
    with Workforce(client, Asked(), wait_s=60, say=print) as crew:  # type: ignore[arg-type]
        nowhere = client.submit(int, workers=["tcp://127.0.0.1:9"], pure=False)
        until(lambda: crew.idle_for_s > 1)
        assert nowhere.status == "pending"
        taking_long = client.submit(takes_long, pure=False)
        until(lambda: crew.idle_for_s < 1)
        GO_ON.set()
        assert taking_long.result()
        until(lambda: crew.idle_for_s > 1)
