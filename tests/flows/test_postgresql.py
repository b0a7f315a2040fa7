"""A Prefect server on PostgreSQL: any password, and a database that goes away under two runs at once."""

from __future__ import annotations

import glob
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas import TaskRun

import store
from tests.flows.running import finish, run, start
from tests.flows.sameness import contents
from tests.secrets import files_of, search
from tests.waiting import wait_until

PASSWORD = "p@ss/w%rd:{é}-1f09c2b7"
BIN = max(glob.glob("/usr/lib/postgresql/*/bin"), default="") or os.path.dirname(
    shutil.which("initdb") or ""
)
pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not BIN, reason="PostgreSQL is not installed (apt-get install postgresql)"),
    pytest.mark.skipif(os.name != "posix", reason="starts PostgreSQL by its own user"),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """A PostgreSQL server of its own on loopback, with a password."""

    folder: Path
    port: int

    def url(self, password: str) -> str:
        """Its address as Prefect takes it."""
        return f"postgresql+asyncpg://me:{password}@127.0.0.1:{self.port}/postgres"

    def control(self, *words: str) -> None:
        """`pg_ctl`, which waits until it is done."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -F"
        place = ("-D", str(self.folder / "data"), "-w", "-l", str(self.folder / "log"))
        self.run("pg_ctl", *place, "-o", options, *words)

    def run(self, program: str, *words: str) -> None:
        """One of PostgreSQL's programs, which refuse to be root."""
        own = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        subprocess.run(
            [*own, f"{BIN}/{program}", *words],
            check=True,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
    made = Database(folder=folder, port=port)
    (folder / "password").write_text(PASSWORD)
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
        shutil.chown(folder / "password", "postgres")
    words = ("-U", "me", "-A", "scram-sha-256", f"--pwfile={folder / 'password'}", "-E", "UTF8")
    made.run("initdb", "-D", str(folder / "data"), "--no-sync", *words)
    made.control("start")
    try:
        yield made
    finally:
        made.control("stop", "-m", "immediate")
        shutil.rmtree(folder)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "prefect").mkdir()
    return tmp_path


def env(place: Path, **more: str) -> dict[str, str]:
    return {"PREFECT_HOME": str(place / "prefect"), "PREFECT_API_URL": "", **more}


def served(place: Path, *words: str, **more: str) -> tuple[subprocess.Popen[str], str]:
    """`ui` with a database, and the address of its API."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    ui = start("ui", "--port", port, "--json", *words, cwd=place, env=env(place, **more))
    assert ui.stdout is not None
    line = ui.stdout.readline()
    assert line, finish(ui).err
    return ui, json.loads(line)["api"]


def ended(ui: subprocess.Popen[str]) -> str:
    os.killpg(ui.pid, signal.SIGINT)
    done = finish(ui, timeout_s=60)
    return done.out + done.err


def test_two_runs_at_once_outlive_a_database_that_is_restarted_in_their_middle(
    database: Database, clips: Path, place: Path
) -> None:
    ui, api = served(place, "--database", database.url(PASSWORD))
    urls = [place / "one.zarr", place / "other.zarr"]
    printed = b""
    try:
        # One clip of each ends after 90 seconds, so that both runs are surely in their middle meanwhile.
        hang = {"PIXELS_ONCE_FAULTS": json.dumps({"*g01_c01.mp4": "hang"})}
        more = ("--batch", "2", "--timeout", "90", "--json")
        running = [
            start("features", *words(clips, url), *more, cwd=place, env=env(place) | hang)
            for url in urls
        ]
        for process, url in zip(running, urls, strict=True):
            wait_until(lambda url=url: list(url.glob("features/c.*")), process, limit_s=400)
        database.control("stop", "-m", "immediate")
        time.sleep(17)  # how long it is away, not a wait for something
        assert [process.poll() for process in running] == [None, None]
        database.control("start")
        for process, url in zip(running, urls, strict=True):
            done = finish(process, timeout_s=400)
            printed += done.err.encode() + done.out.encode()
            assert done.status == 0, done.err
            assert "Traceback" not in done.err
            assert done.json["ready"] + done.json["failed"] == 12
            assert store.verify(str(url)).ok
        for url in urls:  # what a run could not tell the server, the next one does
            again = run(
                "features",
                *words(clips, url),
                "--retry",
                "all",
                "--json",
                cwd=place,
                env=env(place),
            )
            assert again.status == 0, again.err
            assert store.open(url).counts()["ready"] == 12
        assert contents(str(urls[0])) == contents(str(urls[1]))
        with SyncPrefectClient(api) as client:
            states = [run.state_type for run in client.read_flow_runs()]
            assert states == ["COMPLETED"] * 4
            # The end of the last run's tasks travels as an event.
            wait_until(lambda: all(_ended(task) for task in client.read_task_runs()), every_s=1)
    finally:
        said = ended(ui)
    places = files_of(place) | {"said": said.encode() + printed}
    hidden = {"password": PASSWORD, "password as it is sent": quote(PASSWORD, safe="")}
    assert search(places, hidden) == []


def _ended(task: TaskRun) -> bool:
    return task.state is not None and task.state.is_final()


def words(clips: Path, url: Path) -> tuple[str, ...]:
    return ("--videos", str(clips), "--store", str(url), "--backbone", "frames")


@pytest.mark.parametrize("name", ["PREFECT_SERVER_DATABASE_PASSWORD", "encoded"])
def test_a_password_with_every_letter_reaches_the_database(
    database: Database, place: Path, name: str
) -> None:
    given = {name: PASSWORD} if name != "encoded" else {}
    password = f"${{{name}}}" if given else quote(PASSWORD, safe="")
    ui, api = served(place, "--database", database.url(password), **given)
    with SyncPrefectClient(api) as client:
        assert client.read_flow_runs() is not None
    assert "Traceback" not in ended(ui)


def test_a_wrong_password_is_said_and_not_shown(database: Database, place: Path) -> None:
    wrong = "wr@ng/pAsSwOrD-77ab01"
    done = finish(start("ui", "--database", database.url(wrong), cwd=place, env=env(place)))
    assert done.status == 4, done.err
    assert "password authentication failed" in done.err
    said = {"said": done.err.encode() + done.out.encode()} | files_of(place)
    assert search(said, {"password": wrong, "encoded": quote(wrong, safe="")}) == []
