"""A run cancelled through Prefect's API stops, leaves the store whole, and the next one finishes."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

import store
from tests.flows.running import api_url, finish, run, start
from tests.flows.sameness import contents
from tests.waiting import wait_until

FRAMES = ("--backbone", "frames", "--batch", "2")


def ask(path: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        f"{api_url()}{path}",
        data=json.dumps(body).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request) as reply:
        return json.load(reply)


def flow_run(url: Path) -> dict[str, Any]:
    """The flow run that makes this store, once it is known."""
    query = {"flow_runs": {"name": {"like_": str(url)}}}
    return dict(wait_until(lambda: ask("/flow_runs/filter", query))[0])


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_cancelled_run_stops_and_the_next_finishes_its_store(clips: Path, tmp_path: Path) -> None:
    url = tmp_path / "s.zarr"
    words = ("features", "--videos", str(clips), "--store", str(url), *FRAMES)
    # One clip hangs until its time is up, so that the run is surely in its middle.
    hang = {"PIXELS_ONCE_FAULTS": json.dumps({"*g01_c01.mp4": "hang"})}
    running = start(*words, "--timeout", "600", cwd=tmp_path, env=hang)
    started = flow_run(url)
    wait_until(lambda: list(url.glob("features/c.*")), running)
    state = {"type": "CANCELLING", "name": "Cancelling"}
    ask(f"/flow_runs/{started['id']}/set_state", {"state": state, "force": False})
    ended = finish(running, timeout_s=100)
    assert ended.status == 130
    assert "Traceback" not in ended.err
    assert flow_run(url)["state"]["type"] == "CANCELLED"
    tasks = ask("/task_runs/filter", {"flow_runs": {"id": {"any_": [started["id"]]}}})
    assert {task["state"]["type"] for task in tasks} <= {"COMPLETED", "CANCELLED"}
    assert 0 < store.open(url).counts()["pending"] <= 12
    assert run(*words, cwd=tmp_path).status == 0
    whole = tmp_path / "whole.zarr"
    assert run(*words[:4], str(whole), *FRAMES, cwd=tmp_path).status == 0
    assert contents(str(url)) == contents(str(whole))
