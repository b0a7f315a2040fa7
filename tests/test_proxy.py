"""The faulty proxy of the tests: what it passes on is untouched, what it breaks is broken as it says."""

from __future__ import annotations

import http.client
import http.server
import threading
from collections.abc import Iterator

import pytest

from tests.proxy import (
    CUT_AFTER,
    CUT_BEFORE,
    FORBIDDEN_403,
    HALF,
    LOST_500,
    Fault,
    Proxy,
    nth,
)

CONTENT = bytes(range(256)) * 2000


class _Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    got: list[bytes]

    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length", 0))
        self.got.append(self.rfile.read(size))
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for start in range(0, len(CONTENT), 100_000):
            part = CONTENT[start : start + 100_000]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *values: object) -> None:
        """Say nothing."""


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    _Echo.got = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Echo) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        with Proxy(f"http://127.0.0.1:{server.server_port}") as proxy:
            yield proxy
        server.shutdown()


def post(client: http.client.HTTPConnection, body: bytes = b"sent") -> tuple[int, bytes]:
    client.request("POST", "/path?name=value", body)
    answer = client.getresponse()
    return answer.status, answer.read()


def test_what_is_passed_on_is_untouched_and_written_down(proxy: Proxy) -> None:
    client = http.client.HTTPConnection("127.0.0.1", proxy.port)
    assert [post(client) for _ in range(3)] == [(200, CONTENT)] * 3  # one connection, kept alive
    assert _Echo.got == [b"sent"] * 3
    first = proxy.seen[0]
    assert (first.method, first.path, first.query) == ("POST", "/path", {"name": "value"})
    assert (first.body, first.status, first.fault) == (b"sent", 200, None)


@pytest.mark.parametrize(("fault", "arrived"), [(CUT_BEFORE, 0), (CUT_AFTER, 1), (HALF, 1)])
def test_a_cut_connection_is_reset_before_or_after_the_server_has_acted(
    proxy: Proxy, fault: Fault, arrived: int
) -> None:
    proxy.rule = nth(1, fault, lambda request: True)
    with pytest.raises((ConnectionError, http.client.IncompleteRead)):
        post(http.client.HTTPConnection("127.0.0.1", proxy.port))
    assert len(_Echo.got) == arrived
    assert post(http.client.HTTPConnection("127.0.0.1", proxy.port)) == (200, CONTENT)


@pytest.mark.parametrize(("fault", "arrived"), [(FORBIDDEN_403, 0), (LOST_500, 1)])
def test_an_answer_is_replaced_and_the_connection_goes_on(
    proxy: Proxy, fault: Fault, arrived: int
) -> None:
    proxy.rule = nth(2, fault.saying(b"because"), lambda request: True)
    client = http.client.HTTPConnection("127.0.0.1", proxy.port)
    answers = [post(client) for _ in range(3)]
    assert answers == [(200, CONTENT), (fault.status, b"because"), (200, CONTENT)]
    assert len(_Echo.got) == 2 + arrived


def test_while_it_is_away_nobody_gets_through(proxy: Proxy) -> None:
    client = http.client.HTTPConnection("127.0.0.1", proxy.port)
    post(client)
    with proxy.away():
        for each in (client, http.client.HTTPConnection("127.0.0.1", proxy.port)):
            with pytest.raises((ConnectionError, http.client.HTTPException)):
                post(each)
    assert post(http.client.HTTPConnection("127.0.0.1", proxy.port)) == (200, CONTENT)
