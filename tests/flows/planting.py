"""Planted secrets, a site with signed clips, and every byte that a run leaves."""

from __future__ import annotations

import functools
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows.running import Finished, server_home
from tests.secrets import database_of, files_of

FRAMES = ("--backbone", "frames", "--frames", "4", "--batch", "2")


def planted(number: int) -> str:
    """A secret that no other text equals, with letters that every encoding writes differently."""
    return f"pLaNt/{number:02d}+é&{number * 7919 + 104729:08x}-hush"


@pytest.fixture(scope="module")
def site(clips: Path) -> Iterator[str]:
    """The clips behind HTTP: 403 below /forbidden, 404 for what is not there."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/forbidden"):
                self.send_error(403, f"signature of {self.path} does not match")
            else:
                super().do_GET()

        do_HEAD = do_GET

        def log_message(self, format: str, *values: object) -> None:
            """Say nothing."""

    handler = functools.partial(Handler, directory=str(clips))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def left_by(folder: Path, said: dict[str, Finished]) -> dict[str, bytes]:
    """Every byte in the run's folder and in the homes of Prefect and its server, and what was printed."""
    server = server_home()
    printed = {
        f"{name} ({stream})": getattr(done, stream).encode()
        for name, done in said.items()
        for stream in ("out", "err")
    }
    rows = database_of(server)
    assert rows, "Prefect's logs and artifacts"
    own = Path(os.environ["PREFECT_HOME"])
    return {**files_of(folder), **files_of(own), **files_of(server), **rows, **printed}
