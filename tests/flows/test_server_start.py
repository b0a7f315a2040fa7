"""The temporary server's start: a slow one is waited for and shown, a dead one is told at once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flows.server import lifetime
from pipeline.errors import ServiceUnavailable

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    lifetime.quiet_prefect()  # as every command does first


def test_a_server_that_ends_at_its_start_is_told_at_once_with_its_last_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = f"sqlite+aiosqlite:///{tmp_path}/none/prefect.db"
    monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", database)
    with pytest.raises(ServiceUnavailable) as caught:
        lifetime._start_temporary()
    sentence = str(caught.value)
    assert re.search(r"server ended with status \d+ \(.*unable to open database", sentence)
    assert "set PREFECT_API_URL" in sentence
    assert "\n" not in sentence


def test_the_wait_for_a_server_is_shown_in_seconds_and_has_a_limit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lifetime, "_SHOW_WAIT_EVERY_S", 0.6)
    monkeypatch.setattr(lifetime, "_START_TIMEOUT_S", 1.0)
    with pytest.raises(
        ServiceUnavailable, match=r"gave no answer in 1 s: run `prefect server start`"
    ):
        lifetime._start_temporary()
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["the temporary Prefect server is starting: 1 s"]
