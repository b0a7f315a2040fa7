"""What a server of ours stands on: room in the Prefect home, and the URL of a database."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from string import Template
from typing import Any

import pytest
from sqlalchemy import make_url

from flows.names import key, named
from flows.server.home import database_environment, spare_loopback
from flows.server.lifetime import prefect_server
from flows.settings.features import FeaturesSettings
from pipeline.errors import ConfigError
from tests.flows import running


@pytest.fixture
def tiny() -> Iterator[Path]:
    """A file system with room for next to nothing."""
    folder = Path(tempfile.mkdtemp())
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        folder.rmdir()
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
    folder.rmdir()


def test_a_full_prefect_home_is_said_before_a_server_starts(
    clips: Path, tiny: Path, tmp_path: Path
) -> None:
    home = {"PREFECT_API_URL": "", "PREFECT_HOME": str(tiny / "prefect")}
    words = ("--videos", str(clips), "--store", "s.zarr", "--backbone", "frames")
    ended = running.run("features", *words, cwd=tmp_path, env=home)
    assert ended.status == 4, ended.err
    last = ended.err.strip().splitlines()[-1]
    assert last.startswith(
        f"pixels-once features: the Prefect home {tiny / 'prefect'} has less than"
    )
    assert "Traceback" not in ended.err
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.parametrize("password", ["plain", "p@ss/w", "a:b?c#d", "50%", "wört er", "[x]"])
def test_a_database_password_may_hold_any_character(password: str) -> None:
    name = "PREFECT_SERVER_DATABASE_PASSWORD"
    taken = database_environment(
        f"postgresql+asyncpg://me:${{{name}}}@db:5433/prefect", {name: password}
    )
    written = database_environment(f"postgresql+asyncpg://me:{password}@db:5433/prefect", {})
    for values in (taken, written):
        url = make_url(
            Template(values["PREFECT_API_DATABASE_CONNECTION_URL"]).safe_substitute(values)
        )
        assert (url.username, url.password) == ("me", password)
        assert (url.host, url.port, url.database) == ("db", 5433, "prefect")


def test_a_password_that_is_encoded_already_and_a_url_without_one_stay_as_they_are() -> None:
    for url in ("postgresql+asyncpg://me:p%40ss@db/prefect", "sqlite+aiosqlite:////data/p.db"):
        assert database_environment(url, {}) == {"PREFECT_API_DATABASE_CONNECTION_URL": url}
    with pytest.raises(ConfigError, match="PREFECT_SERVER_DATABASE_PASSWORD, which is not set"):
        database_environment("postgresql://me:${PREFECT_SERVER_DATABASE_PASSWORD}@db/p", {})


def test_this_machine_is_asked_past_the_proxy() -> None:
    without = {"HOME": "/"}
    spare_loopback(without)
    assert without == {"HOME": "/"}
    for before in ({}, {"NO_PROXY": "db.example"}, {"no_proxy": "db.example"}):
        values = {"HTTP_PROXY": "http://proxy:3128", **before}
        spare_loopback(values)
        spared = values["no_proxy"].split(",")
        assert values["NO_PROXY"] == values["no_proxy"]
        assert {"127.0.0.1", "localhost", "::1", *before.values()} == set(spared)
    every = {"http_proxy": "http://proxy:3128", "no_proxy": "*"}
    spare_loopback(every)
    assert every["no_proxy"] == "*"


def test_stores_of_one_base_name_are_two_in_the_ui(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = tmp_path / "one" / "clips.zarr", tmp_path / "other" / "clips.zarr"
    assert key("summary", str(one)) != key("summary", str(other))
    one.parent.mkdir()
    monkeypatch.chdir(one.parent)
    assert named("clips.zarr") == named(str(one)) == named(f"file://{one}/")
    assert named("clips.zarr").startswith("clips-")


def test_two_projects_get_two_schedules(tmp_path: Path, prefect_api: str) -> None:
    from flows.schedule.deployments import Schedule, deployment_of

    def deployment(store: str, name: str = "") -> Any:
        settings = FeaturesSettings(videos="clips", store=store)
        return deployment_of("features", settings, Schedule(interval=60.0), name)

    one, other = (deployment(str(tmp_path / name / "clips.zarr")) for name in ("one", "other"))
    assert one.name != other.name
    assert deployment("x.zarr", "mine").name == "mine"


def test_a_choice_that_was_edited_by_hand_is_refused_in_one_sentence(prefect_api: str) -> None:
    from flows.extract.flow import features

    with (
        prefect_server(),
        pytest.raises(ConfigError, match=r"^if_busy is 'skipp': choose .*: did you mean skip\?$"),
    ):
        features(FeaturesSettings(if_busy="skipp"))
