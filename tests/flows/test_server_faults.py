"""Between a run and its Prefect server stands a proxy that breaks requests by rule: the run ends well.

The kinds of requests are not written down here: a run without faults lists them, and every kind is broken
in every way.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterName,
)
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import TerminationSignal
from prefect.states import Completed, Crashed, Running

import store
from flows.server import processes, run_client
from flows.server.processes import identity
from flows.server.settling import settle
from tests import proxy as faults
from tests.features.clips import write_numbered_clip
from tests.flows import running
from tests.proxy import Fault, Proxy, Request

FRAMES = ("--backbone", "frames", "--frames", "4", "--batch", "2")
CLIPS = 4
Kind = tuple[str, str]
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}")


def kind_of(request: Request) -> Kind:
    """What a request is for: its method, and its path without the numbers of things."""
    return request.method, _ID.sub("{id}", request.path.removeprefix("/api"))


class EachOnce:
    """Breaks the first request of every kind; `broken` lists them."""

    def __init__(self, fault: Fault) -> None:
        self._fault = fault
        self.broken: set[Kind] = set()

    def __call__(self, request: Request) -> Fault | None:
        kind = kind_of(request)
        if kind in self.broken:
            return None
        self.broken.add(kind)
        return self._fault


class Always:
    """Breaks every request of some kinds."""

    def __init__(self, fault: Fault, *kinds: Kind) -> None:
        self._fault = fault
        self._kinds = kinds
        self.times = 0

    def __call__(self, request: Request) -> Fault | None:
        if kind_of(request) not in self._kinds:
            return None
        self.times += 1
        return self._fault


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four short clips."""
    folder = tmp_path_factory.mktemp("few")
    for number in range(CLIPS):
        write_numbered_clip(folder / f"v_Jump_g01_c{number:02d}.mp4", frames=8)
    return folder


@pytest.fixture(scope="module")
def whole(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which nothing is left to make, made while the server takes no artifact at all."""
    url = tmp_path_factory.mktemp("whole") / "s.zarr"
    artifacts = (("POST", "/artifacts/"), ("PATCH", "/artifacts/{id}"))
    with between(Always(faults.ERROR_500, *artifacts)) as proxy, patience(1.0):
        made = extract(few, url)
        assert made.status == 0, made.err
        assert sum(kind_of(request) in artifacts for request in proxy.seen) > 3
    assert "Traceback" not in made.err
    assert made.err.count("the run's page lacks") == 1, made.err
    assert_well(url)
    return url


@pytest.fixture(autouse=True)
def _owing_nothing(prefect_api: str) -> Iterator[None]:
    yield
    for path in run_client.owed_folder().glob("*.json"):
        path.unlink()


@contextlib.contextmanager
def between(rule: object = None) -> Iterator[Proxy]:
    """A proxy before the session's server, which the commands within the block take for the server."""
    before = running.api_url()
    with Proxy(before.removesuffix("/api"), rule) as proxy:  # type: ignore[arg-type]
        os.environ["PREFECT_API_URL"] = f"{proxy.url}/api"
        try:
            yield proxy
        finally:
            os.environ["PREFECT_API_URL"] = before


@contextlib.contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Within the block, a run asks again for so many seconds at most."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_client._PatientHttp, "patience_s", seconds)
        patch.setattr(run_client, "PATIENCE_S", seconds)
        patch.setattr(run_client, "_SHORT_S", min(seconds, 1.0))
        yield


def extract(clips: Path, url: Path, *words: str) -> running.Finished:
    return running.run_here(
        "features", "--videos", str(clips), "--store", str(url), *FRAMES, "--json", *words
    )


def server() -> SyncPrefectClient:
    """A client of the server itself, past the proxy."""
    return SyncPrefectClient(running.api_url())


def runs_of(url: Path) -> list[FlowRun]:
    named = FlowRunFilter(name=FlowRunFilterName(like_=str(url)))
    with server() as client:
        return client.read_flow_runs(flow_run_filter=named)


def open_states(url: Path) -> list[str]:
    """The runs and the batches of a store that count as neither ended nor to come."""
    found = runs_of(url)
    ids = [run.id for run in found]
    with server() as client:
        chosen = FlowRunFilter(id=FlowRunFilterId(any_=ids))
        tasks = client.read_task_runs(flow_run_filter=chosen) if ids else []
    return [one.name for one in (*found, *tasks) if one.state is None or not one.state.is_final()]


def assert_well(url: Path) -> None:
    """The store is whole, and after a settling no run and no batch of it counts as open."""
    assert store.verify(str(url)).ok
    assert store.holder(str(url)) is None
    until = time.monotonic() + 5
    while open_states(url) and time.monotonic() < until:
        time.sleep(0.1)  # states of batches travel as events
    with server() as client:
        settle(client)
    assert open_states(url) == []


@pytest.mark.long
@pytest.mark.parametrize("fault", [faults.CUT_AFTER, faults.LOST_500], ids=str)
def test_every_request_of_a_run_may_fail_once(few: Path, whole: Path, fault: Fault) -> None:
    rule = EachOnce(fault)
    with between(rule):
        again = extract(few, whole)
    assert again.status == 0, again.err
    assert again.json["outcome"] == "nothing to do"
    assert "Traceback" not in again.err
    assert {("POST", "/flow_runs/"), ("POST", "/flow_runs/{id}/set_state")} <= rule.broken
    assert_well(whole)


def test_a_final_state_that_the_server_does_not_take_is_told_later(few: Path, whole: Path) -> None:
    known = {run.id for run in runs_of(whole)}

    def refused(request: Request) -> Fault | None:
        ends = request.path.endswith("/set_state") and b'"COMPLETED"' in request.body
        return faults.ERROR_500 if ends else None

    with between(refused), patience(0.5):
        again = extract(few, whole)
    assert again.status == 0, again.err
    assert again.err.count("did not accept this run's final state (Completed)") == 1
    assert "Traceback" not in again.err
    (mine,) = [run for run in runs_of(whole) if run.id not in known]
    assert mine.state is not None
    assert mine.state.is_running()
    assert extract(few, whole).status == 0  # whatever runs next tells it
    (told,) = [run for run in runs_of(whole) if run.id == mine.id]
    assert told.state is not None
    assert told.state.is_completed()
    assert list(run_client.owed_folder().iterdir()) == []


def test_a_run_that_the_server_does_not_take_ends_in_one_sentence(few: Path, whole: Path) -> None:
    with between(Always(faults.ERROR_500, ("POST", "/flow_runs/"))), patience(0.5):
        refused = extract(few, whole)
    assert refused.status == 4
    said = refused.err.splitlines()
    assert said[-1].startswith("pixels-once features: the Prefect server at http://127.0.0.1:")
    assert "answers 500 to POST /flow_runs/" in said[-1]
    assert "Traceback" not in refused.err


def test_a_run_that_is_cut_off_by_a_stop_is_cancelled_and_has_not_crashed(
    prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server() as bare:
        client = run_client.made_patient(bare)
        flow = client.create_flow_from_name("features")
        for cause, ends in (
            (TerminationSignal(signal.SIGTERM), "CANCELLED"),
            (KeyboardInterrupt(), "CANCELLED"),
            (MemoryError(), "CRASHED"),
        ):
            monkeypatch.setattr(run_client, "scheduled", threading.Event())
            run_client.scheduled.set()
            answer = client.request("POST", "/flow_runs/", json={"flow_id": str(flow), "name": "a"})
            run = UUID(answer.json()["id"])
            client.set_flow_run_state(run, Running())
            try:
                raise cause
            except BaseException:  # as Prefect's engine does
                client.set_flow_run_state(run, Crashed(message="aborted"), force=True)
            assert client.read_flow_run(run).state_type == ends
            client.delete_flow_run(run)


def test_a_task_whose_end_the_server_has_lost_ends_with_its_run(prefect_api: str) -> None:
    child = subprocess.Popen(["sleep", "600"])
    gone = identity(child.pid)
    child.kill()
    child.wait()
    with server() as client:
        flow = client.create_flow_from_name("features")
        tasks, runs = {}, []
        for labels in (gone, identity()):
            given = {"flow_id": str(flow), "name": "a", "labels": labels}
            run = UUID(client.request("POST", "/flow_runs/", json=given).json()["id"])
            given = {"flow_run_id": str(run), "task_key": "t", "dynamic_key": "0"}
            task = UUID(client.request("POST", "/task_runs/", json=given).json()["id"])
            client.set_task_run_state(task, Running(), force=True)
            client.set_flow_run_state(run, Completed(), force=True)
            tasks[labels is not gone] = task
            runs.append(run)
        settle(client)
        states = {alive: client.read_task_run(task).state_type for alive, task in tasks.items()}
        assert states == {False: "COMPLETED", True: "RUNNING"}
        for run in runs:
            client.delete_flow_run(run)


def test_only_runs_whose_process_has_gone_are_buried(
    prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = processes._machine() | {"host": "worker/0123abcd"}  # a container's may have no id
    monkeypatch.setattr(processes, "_machine", lambda: machine)
    child = subprocess.Popen(["sleep", "600"])
    dead = identity(child.pid)
    child.kill()
    child.wait()
    here = identity()
    elsewhere = dead | {"pixels-once.host": "another"}
    of = {
        "dead": dead,
        "number used again": here | {"pixels-once.started": "1"},
        "before the reboot": here | {"pixels-once.boot": "another"},
        "alive": here,
        "on another machine": elsewhere,
        "in another container": dead | {"pixels-once.processes": "another"},
        "nobody's": {},
    }
    with server() as client:
        flow = client.create_flow_from_name("features")
        runs = {}
        for name, labels in of.items():
            answer = client.request(
                "POST",
                "/flow_runs/",
                json={"flow_id": str(flow), "name": name, "labels": labels},
            )
            runs[name] = UUID(answer.json()["id"])
            client.set_flow_run_state(runs[name], Running())
        settle(client)
        ended = {
            name for name, run in runs.items() if client.read_flow_run(run).state_type == "CRASHED"
        }
        assert ended == {"dead", "number used again", "before the reboot"}
        message = client.read_flow_run(runs["dead"]).state.message  # type: ignore[union-attr]
        assert f"process {child.pid} on " in str(message)
        for run in runs.values():
            client.delete_flow_run(run)
