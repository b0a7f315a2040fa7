"""Sixty runs in a row under `serve`, with small changes between, ten stopped: nothing piles up."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from uuid import UUID

import psutil
import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.exceptions import ObjectNotFound

import store
from tests.faults.breaking import left_shared_memory, shared_memory
from tests.features.clips import write_numbered_clip
from tests.flows.running import environment, finish, start

RUNS, STOPPED = 60, 10
CLIPS = 6
pytestmark = [pytest.mark.long, pytest.mark.timeout(5400)]


@dataclass(frozen=True, slots=True)
class Left:
    """What there is after a run. Sizes in KiB; files under the temporary folder and of the store."""

    home: int
    store: int
    store_files: int
    temporary: int
    shared_memory: int
    descriptors: int
    processes: int


def kib(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) // 1024


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Clips, settings, and a temporary folder and a Prefect home of their own."""
    (tmp_path / "clips").mkdir()
    (tmp_path / "tmp").mkdir()
    for number in range(CLIPS):
        write_numbered_clip(tmp_path / "clips" / f"v_Jump_g01_c{number:02d}.mp4", frames=8)
    (tmp_path / "f.toml").write_text(
        '[features]\nbackbone = "frames"\nframes = 4\nbatch = 2\n', encoding="utf-8"
    )
    return tmp_path


@pytest.fixture
def home(place: Path) -> dict[str, str]:
    return {
        "PREFECT_HOME": str(place / "prefect"),
        "PREFECT_API_URL": "",
        "TMPDIR": str(place / "tmp"),
    }


@pytest.fixture
def client(place: Path, home: dict[str, str]) -> Iterator[SyncPrefectClient]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ui = start("ui", "--port", str(port), "--json", cwd=place, env=home)
    assert ui.stdout is not None
    said = json.loads(ui.stdout.readline())
    with SyncPrefectClient(said["api"]) as found:
        yield found
    os.killpg(ui.pid, signal.SIGINT)
    finish(ui, timeout_s=60)


def serve(place: Path, home: dict[str, str]) -> tuple[subprocess.Popen[bytes], str]:
    """`serve`, with its output in a file, and its deployment's name."""
    said = place / "serve.txt"
    words = ("--videos", "clips", "--store", "s.zarr", "--settings", "f.toml")
    with open(said, "w+b") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows", "serve", *words, "--interval", "86400"],
            cwd=place,
            env=environment(home),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + 120
    while "next: " not in said.read_text():
        assert process.poll() is None, said.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return process, said.read_text().split()[1].rstrip(";")


def registered(client: SyncPrefectClient, name: str, most_s: float = 60) -> UUID:
    deadline = time.monotonic() + most_s
    while True:
        with contextlib.suppress(ObjectNotFound):
            return client.read_deployment_by_name(name).id
        assert time.monotonic() < deadline
        time.sleep(0.2)


def change(clips: Path, number: int) -> None:
    """A clip comes, one changes, one goes."""
    path = clips / f"v_Jump_g02_c{number % 3:02d}.mp4"
    if number % 3 == 2 and path.exists():
        path.unlink()
    else:
        write_numbered_clip(path, frames=8 + number // 3 % 7)  # other bytes than before


def left(place: Path, serving: int, before: set[str]) -> Left:
    own = psutil.Process(serving)
    psutil.wait_procs(
        own.children(recursive=True), timeout=60
    )  # it says its end before it has gone
    return Left(
        home=kib(place / "prefect"),
        store=kib(place / "s.zarr"),
        store_files=sum(1 for _ in (place / "s.zarr").rglob("*")),
        temporary=sum(1 for _ in (place / "tmp").rglob("*")),
        shared_memory=len(left_shared_memory(before)),
        descriptors=own.num_fds(),
        processes=len(own.children(recursive=True)),
    )


def ended(client: SyncPrefectClient, run: UUID, most_s: float = 300) -> str:
    deadline = time.monotonic() + most_s
    while True:
        state = client.read_flow_run(run).state
        if state is not None and state.is_final():
            return f"{state.type.value} {state.name}"
        assert time.monotonic() < deadline, state
        time.sleep(0.2)


def test_nothing_piles_up_and_every_run_has_an_end(
    place: Path, home: dict[str, str], client: SyncPrefectClient
) -> None:
    chance = random.Random(0)
    stopped = set(chance.sample(range(3, RUNS - 1), STOPPED))
    shared = shared_memory()
    serving, name = serve(place, home)
    deployment = registered(client, name)
    ends: dict[str, int] = {}
    after: list[Left] = []
    try:
        for number in range(RUNS):
            change(place / "clips", number)
            run = client.create_flow_run_from_deployment(deployment).id
            if number in stopped:
                # From before it is taken up to its middle.
                time.sleep(chance.uniform(4, 12))
                os.killpg(serving.pid, chance.choice((signal.SIGINT, signal.SIGTERM)))
                assert serving.wait(timeout=90) == 0
                state = client.read_flow_run(run).state
                assert state is not None
                assert state.is_final() or state.is_scheduled(), state
                serving, _ = serve(place, home)
            how = ended(client, run)
            ends[how] = ends.get(how, 0) + 1
            if number not in stopped:
                assert how == "COMPLETED Completed", (place / "serve.txt").read_text()[-2000:]
            assert how in ("COMPLETED Completed", "CANCELLED Cancelled"), how
            after.append(left(place, serving.pid, shared))
            print(number + 1, how, after[-1], flush=True)
    finally:
        os.killpg(serving.pid, signal.SIGTERM)
        serving.wait(timeout=90)
    print(f"ends: {ends}")
    for item in fields(Left):
        values = [getattr(one, item.name) for one in after]
        print(
            f"{item.name}: after 10 runs {values[9]}, after {RUNS} {values[-1]}, most {max(values)}"
        )
    tenth, last = after[9], after[-1]
    assert sum(ends.values()) == RUNS
    assert store.verify(str(place / "s.zarr")).ok
    assert last.processes == 0
    assert last.shared_memory == 0
    assert last.temporary <= tenth.temporary + 2
    assert last.descriptors <= tenth.descriptors + 4
    assert last.store_files <= tenth.store_files + 8
    assert last.store <= 1.5 * tenth.store + 64
    # Its history alone: about fifteen events, eight log lines and three artifacts a run.
    assert last.home <= tenth.home + 250 * (RUNS - 10)
    assert not list((place / "prefect").glob("pixels-once-owed/*"))
    shutil.rmtree(place / "tmp")
