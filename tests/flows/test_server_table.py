"""Every kind of request that a run makes to its Prefect server × every fault: the run ends well.

The kinds are those that a run without faults is seen to make.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

import store
from tests import proxy as faults
from tests.flows import running
from tests.flows.test_server_faults import (
    Always,
    EachOnce,
    Kind,
    assert_well,
    between,
    extract,
    kind_of,
    open_states,
    patience,
    runs_of,
    server,
)
from tests.flows.test_server_faults import few as few
from tests.flows.test_server_faults import whole as whole
from tests.proxy import Fault
from tests.waiting import wait_until

# A run cannot begin without these: it ends in one sentence where they are refused for good.
NEEDED = {
    ("GET", "/health"),
    ("POST", "/flows/"),
    ("POST", "/flow_runs/"),
    ("PATCH", "/flow_runs/{id}"),
    ("GET", "/flow_runs/{id}"),
    ("POST", "/flow_runs/{id}/set_state"),
    ("GET", "/csrf-token"),
    ("GET", "/admin/storage"),
}
pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def kinds(few: Path, tmp_path_factory: pytest.TempPathFactory) -> set[Kind]:
    """What a run asks of its server, from its beginning to its end."""
    url = tmp_path_factory.mktemp("kinds") / "s.zarr"
    with between() as proxy:
        assert extract(few, url).status == 0
    found = {kind_of(request) for request in proxy.seen}
    assert found >= {
        ("PATCH", "/artifacts/{id}"),
        ("POST", "/artifacts/"),
        ("POST", "/logs/"),
        ("POST", "/flow_runs/{id}/set_state"),
        ("GET", "/events/in"),
    }
    return found


@pytest.fixture(scope="module")
def idle(few: Path, whole: Path) -> set[Kind]:
    """What a run asks of its server that has nothing to make."""
    with between() as proxy:
        assert extract(few, whole).status == 0
    return {kind_of(request) for request in proxy.seen}


@pytest.mark.parametrize("fault", faults.FAULTS, ids=str)
def test_every_kind_broken_once_in_one_run(
    few: Path, kinds: set[Kind], tmp_path: Path, fault: Fault
) -> None:
    rule = EachOnce(fault)
    url = tmp_path / "s.zarr"
    with between(rule):
        made = extract(few, url)
    assert made.status == 0, made.err
    assert made.json["ready"] == 4
    assert "Traceback" not in made.err
    assert rule.broken >= kinds, "a kind was not asked for, so not broken"
    assert_well(url)


@pytest.mark.parametrize(
    "fault", [faults.CUT_BEFORE, faults.ERROR_500, faults.FORBIDDEN_403, faults.MOVED_301], ids=str
)
def test_every_kind_refused_for_good(
    whole: Path, few: Path, kinds: set[Kind], idle: set[Kind], fault: Fault, tmp_path: Path
) -> None:
    """A cell for each kind, one run each: with nothing left to make, where that asks for it as well."""
    wrong: list[str] = []
    for number, kind in enumerate(sorted(kinds)):
        began = time.monotonic()
        url = whole if kind in idle else tmp_path / f"{number}.zarr"
        with between(Always(fault, kind)) as proxy, patience(0.3):
            ended = extract(few, url)
            assert any(request.fault is fault for request in proxy.seen), kind
        found = outcome_of(kind, ended)
        with contextlib.suppress(AssertionError):
            assert_well(url)
            print(f"{fault} {kind}: {ended.status}, {time.monotonic() - began:.0f} s", found)
            wrong += [f"{kind}: {found}"] * bool(found)
            continue
        wrong.append(f"{kind}: {found or 'a state stays open, or the store is not whole'}")
    assert not wrong


def outcome_of(kind: Kind, ended: running.Finished) -> str:
    """What is wrong with the end of a run that a kind of request was refused; empty where all is well."""
    if "Traceback" in ended.err:
        return f"a traceback: {ended.err}"
    if not ended.status:
        return ""
    last = ended.err.strip().splitlines()[-1]
    if kind not in NEEDED or ended.status != 4:
        return f"ends with {ended.status}: {last}"
    if not last.startswith("pixels-once features: ") or "Prefect server" not in last:
        return f"does not name the cause: {last}"
    return ""


def hanging() -> dict[str, str]:
    """A run that is in its middle for as long as wanted."""
    return {"PIXELS_ONCE_FAULTS": json.dumps({"*c03.mp4": "hang"})}


def in_the_middle(few: Path, url: Path, **env: str) -> subprocess.Popen[str]:
    words = ("features", "--videos", str(few), "--store", str(url), "--backbone", "frames")
    more = ("--frames", "4", "--batch", "2", "--timeout", "30", "--json")
    process = running.start(*words, *more, cwd=url.parent, env=hanging() | env)
    wait_until(lambda: list(url.glob("features/c.*")), process)
    return process


def test_a_server_that_is_away_for_a_while_costs_nothing_but_lines(
    few: Path, tmp_path: Path
) -> None:
    url = tmp_path / "s.zarr"
    with between() as proxy:
        process = in_the_middle(few, url)
        with proxy.away():
            time.sleep(17)
        ended = running.finish(process)
    assert ended.status == 0, ended.err
    assert ended.json["ready"] == 3
    assert "Traceback" not in ended.err
    (mine,) = runs_of(url)
    assert mine.state is not None
    assert mine.state.is_completed()
    assert_well(url)


def test_a_run_that_is_deleted_in_its_middle_ends_well(few: Path, tmp_path: Path) -> None:
    url = tmp_path / "s.zarr"
    process = in_the_middle(few, url)
    with server() as client:
        for run in runs_of(url):
            client.delete_flow_run(run.id)
    ended = running.finish(process)
    assert ended.status == 0, ended.err
    assert "Traceback" not in ended.err
    assert "was deleted from the Prefect server" in ended.err
    assert store.verify(str(url)).ok


def test_a_killed_run_is_crashed_by_the_next_one(few: Path, tmp_path: Path) -> None:
    url = tmp_path / "s.zarr"
    process = in_the_middle(few, url)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    (killed,) = runs_of(url)
    assert open_states(url)
    other = tmp_path / "other.zarr"
    assert extract(few, other).status == 0
    with server() as client:
        state = client.read_flow_run(killed.id).state
    assert state is not None
    assert state.is_crashed()
    assert f"process {process.pid} on " in str(state.message)
    assert open_states(url) == []
    shutil.rmtree(other)
