"""A server that is busy is waited for; where there is none, or another program, is said at once."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from flows.server import health, lifetime
from pipeline.errors import ServiceUnavailable

TRUE = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\ntrue"
LOST = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
NOT_HTTP = b"SSH-2.0-OpenSSH_9.6\r\n"
OTHER = b"HTTP/1.1 404 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
SILENT = b""


@contextlib.contextmanager
def server(*replies: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """Its address, and the replies that it has given; the last one goes on for ever."""
    given: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening, contextlib.ExitStack() as silent:

        def answer() -> None:
            with contextlib.suppress(OSError):  # the test has ended
                while True:
                    asked, _ = listening.accept()
                    given.append(replies[min(len(given), len(replies) - 1)])
                    if given[-1]:
                        asked.recv(4096)
                        asked.sendall(given[-1])
                        asked.close()
                    else:
                        silent.enter_context(asked)

        threading.Thread(target=answer, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/api", given
        listening.shutdown(socket.SHUT_RDWR)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_ANSWER_TIMEOUT_S", 0.3)
    monkeypatch.setattr(health, "_PAUSES_S", (0.01, 0.02))


def test_one_that_answers_late_is_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    with server(SILENT, SILENT, LOST, SILENT, LOST, TRUE) as (url, given):
        assert health.refusal_in_the_end(url) is None
    assert len(given) == 6
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"the Prefect server at {url} is busy (HTTP status 503): waiting up to 60 s"


def test_one_that_is_busy_for_long_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_BUSY_S", 0.0)
    with server(SILENT) as (url, given):
        monkeypatch.setenv("PREFECT_API_URL", url)
        with pytest.raises(ServiceUnavailable, match=r"answers at http:.* \(no answer in 0 s\)"):
            lifetime.find_server()
    assert len(given) == 3


def test_another_program_or_none_is_not_waited_for() -> None:
    with server(OTHER) as (url, given):
        assert health.refusal_in_the_end(url) == health.Refusal("HTTP status 404")
    assert len(given) == 3
    with server(NOT_HTTP) as (url, given):
        assert health.refusal_in_the_end(url) == health.Refusal(health._ANOTHER)
    assert len(given) == 3
    found = health.refusal_in_the_end(url)
    assert found == health.Refusal("Connection refused")
    assert health.refusal_in_the_end("nothing") == health.Refusal(
        "unknown url type: 'nothing/health'"
    )
