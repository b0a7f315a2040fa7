"""Every kind of request that `serve` and its runs make × every fault: the scheduled run completes."""

from __future__ import annotations

import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.states import Scheduled

import store
from flows.schedule import due
from flows.schedule.deployments import Schedule, deployment_of, served
from flows.schedule.due import Serving
from flows.server.run_client import made_patient
from flows.settings.features import FeaturesSettings
from tests import proxy as faults
from tests.flows import running
from tests.flows.test_server_faults import EachOnce, assert_well, between, server
from tests.flows.test_server_faults import few as few
from tests.proxy import Fault

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

LEAST = {
    ("POST", "/deployments/get_scheduled_flow_runs"),
    ("PATCH", "/flow_runs/{id}/labels"),
    ("POST", "/flow_runs/{id}/set_state"),
    ("GET", "/flow_runs/{id}"),
    ("POST", "/artifacts/"),
    ("POST", "/logs/"),
}
"""Some of what is asked: the rest is what is seen."""


@pytest.mark.parametrize("fault", faults.FAULTS, ids=str)
def test_every_kind_of_a_schedule_broken_once(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    monkeypatch.setattr(due, "_POLL_S", 0.3)
    monkeypatch.setenv("PYTHONPATH", str(running.ROOT))
    url = tmp_path / "s.zarr"
    settings = served(
        FeaturesSettings(videos=str(few), store=str(url), backbone="frames", frames=4, batch=2)
    )
    running.api_url()
    deployment = deployment_of("features", settings, Schedule(interval=86_400.0)).apply()
    rule = EachOnce(fault)
    with server() as bare, between(rule) as proxy:
        at = Scheduled(scheduled_time=datetime.now(UTC))
        run = bare.create_flow_run_from_deployment(deployment, state=at).id
        with made_patient(SyncPrefectClient(f"{proxy.url}/api")) as client:
            command = (sys.executable, "-m", "flows.schedule.scheduled", "features")
            serving = Serving(client, deployment, lambda one: (*command, str(one)))
            thread = threading.Thread(target=serving.run)
            thread.start()
            try:
                deadline = time.monotonic() + 300
                state = bare.read_flow_run(run).state
                while state is None or not state.is_final():
                    assert time.monotonic() < deadline, state
                    time.sleep(0.2)
                    state = bare.read_flow_run(run).state
            finally:
                serving.stop()
                thread.join(timeout=60)
        bare.delete_deployment(deployment)
    assert not thread.is_alive()
    assert state.is_completed(), state
    assert store.open(str(url)).counts()["ready"] == 4
    assert rule.broken >= LEAST
    print(fault, len(rule.broken), sorted(rule.broken))
    assert_well(url)
