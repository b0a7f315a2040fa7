"""The loop of `serve` against a real server: one run at a time, and each has an end."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.states import Scheduled

from flows.schedule import due
from flows.schedule.deployments import Schedule, deployment_of, replace_earlier
from flows.schedule.due import Serving
from flows.server.lifetime import prefect_server
from flows.server.run_client import RunClient, made_patient
from flows.settings.features import FeaturesSettings
from tests.flows import running
from tests.proxy import CUT_AFTER, Proxy, nth

TELLS = """
import json, pathlib, sys, time
began = time.monotonic()
time.sleep(float(sys.argv[2]))
with open(sys.argv[1], "a") as file:
    file.write(json.dumps([sys.argv[3], began, time.monotonic()]) + "\\n")
"""


@pytest.fixture
def client(prefect_api: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunClient]:
    monkeypatch.setattr(due, "_POLL_S", 0.1)
    monkeypatch.setattr(due, "_AT_ONCE_AFTER_S", 0.5)
    with made_patient(SyncPrefectClient(prefect_api)) as found:
        yield found  # type: ignore[misc]


@pytest.fixture
def deployment(client: RunClient) -> UUID:
    """A deployment that nobody else serves."""
    flow = client.create_flow_from_name("due")
    return client.create_deployment(flow_id=flow, name=uuid4().hex)


def late(client: RunClient, deployment: UUID, count: int) -> list[UUID]:
    """Runs that have been due for a while, the earliest first."""
    now = datetime.now(UTC)
    return [
        client.create_flow_run_from_deployment(
            deployment, state=Scheduled(scheduled_time=now - timedelta(minutes=count - number))
        ).id
        for number in range(count)
    ]


def until_ended(client: RunClient, runs: list[UUID], most_s: float = 30) -> list[FlowRun]:
    deadline = time.monotonic() + most_s
    while True:
        found = [client.read_flow_run(run) for run in runs]
        if all(run.state is not None and run.state.is_final() for run in found):
            return found
        assert time.monotonic() < deadline, [run.state for run in found]
        time.sleep(0.05)


def served(serving: Serving, work: Callable[[], None]) -> None:
    thread = threading.Thread(target=serving.run)
    thread.start()
    try:
        work()
    finally:
        serving.stop()
        thread.join(timeout=30)
    assert not thread.is_alive()


def telling(folder: Path, seconds: float) -> Callable[[UUID], list[str]]:
    (folder / "tells.py").write_text(TELLS, encoding="utf-8")
    program = [sys.executable, str(folder / "tells.py"), str(folder / "told"), str(seconds)]
    return lambda run: [*program, str(run)]


def test_late_runs_start_one_at_a_time_in_order_and_each_has_an_end(
    client: RunClient, deployment: UUID, tmp_path: Path
) -> None:
    runs = late(client, deployment, 3)
    serving = Serving(client, deployment, telling(tmp_path, 0.2))
    ended: list[FlowRun] = []
    served(serving, lambda: ended.extend(until_ended(client, runs)))
    told = [json.loads(line) for line in (tmp_path / "told").read_text().splitlines()]
    assert [name for name, _, _ in told] == [str(run) for run in runs]
    assert all(later[1] >= earlier[2] for earlier, later in pairwise(told))
    # Their processes have said nothing to the server: nothing but `serve` gives them an end.
    assert {run.state.type.value for run in ended if run.state} == {"CRASHED"}


def test_stopping_ends_the_run_in_hand_as_cancelled(
    client: RunClient, deployment: UUID, tmp_path: Path
) -> None:
    (run,) = late(client, deployment, 1)
    serving = Serving(client, deployment, telling(tmp_path, 600))

    def taken_up() -> None:
        deadline = time.monotonic() + 30
        while client.read_flow_run(run).state_type != "PENDING":
            assert time.monotonic() < deadline
            time.sleep(0.05)

    served(serving, taken_up)
    assert client.read_flow_run(run).state_type == "CANCELLED"
    assert not (tmp_path / "told").exists()


def test_a_run_whose_taking_up_was_answered_to_nobody_is_run_all_the_same(
    client: RunClient, deployment: UUID, tmp_path: Path
) -> None:
    (run,) = late(client, deployment, 1)
    taking = nth(1, CUT_AFTER, lambda request: request.path.endswith("/set_state"))
    with Proxy(running.api_url().removesuffix("/api"), taking) as proxy:
        through = made_patient(SyncPrefectClient(f"{proxy.url}/api"))
        serving = Serving(through, deployment, telling(tmp_path, 0))
        served(serving, lambda: (until_ended(client, [run]), None)[1])
        assert any(request.fault for request in proxy.seen)
    assert (tmp_path / "told").exists()


def test_the_schedule_outlives_a_server_that_is_away(
    client: RunClient, deployment: UUID, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Proxy(running.api_url().removesuffix("/api")) as proxy:
        through = made_patient(SyncPrefectClient(f"{proxy.url}/api"))
        serving = Serving(through, deployment, telling(tmp_path, 0))

        def work() -> None:
            with proxy.away():
                while "does not answer" not in "".join(heard):
                    time.sleep(0.1)
                    heard.append(capsys.readouterr().err)
                time.sleep(0.3)  # it asks again, and says nothing more
            until_ended(client, late(client, deployment, 1))

        heard: list[str] = []
        served(serving, work)
    said = "".join(heard) + capsys.readouterr().err
    assert said.count("does not answer") == 1
    assert said.count("answers again") == 1


def test_only_a_schedules_own_later_run_with_the_same_parameters_overtakes() -> None:
    now = datetime.now(UTC)

    def run(minutes: int, *, auto: bool = True, **parameters: object) -> SimpleNamespace:
        at = now + timedelta(minutes=minutes)
        return SimpleNamespace(
            id=uuid4(), auto_scheduled=auto, parameters=parameters, expected_start_time=at
        )

    assert due._overtakes(run(1), run(0))
    assert not due._overtakes(run(0), run(1))
    assert not due._overtakes(run(1, auto=False), run(0))
    assert not due._overtakes(run(1), run(0, auto=False))
    assert not due._overtakes(run(1, store="a"), run(0, store="b"))


def test_the_deployment_of_an_earlier_version_is_paused_and_anothers_is_not(
    prefect_api: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, others = (str(tmp_path / name / "old.zarr") for name in ("mine", "others"))

    def deployment(store: str, name: str = "") -> Any:
        settings = FeaturesSettings(videos="clips", store=store)
        return deployment_of("features", settings, Schedule(interval=3600.0), name)

    with prefect_server():
        client = get_client(sync_client=True)
        before = deployment(mine, "old").apply()
        for store in (others, mine):
            replace_earlier(client, "features", deployment(store))
            assert client.read_deployment(before).paused == (store == mine)
        replace_earlier(client, "features", deployment(others, "old"), "old")
        client.delete_deployment(before)
    said = capsys.readouterr().err
    assert said.count("features/old of an earlier version is paused") == 1
    assert f"has been the schedule of {mine} and is that of {others}" in said
