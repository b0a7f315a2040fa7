"""Clips of a manifest that cannot be seen for a while: no ready row loses its features by it."""

from __future__ import annotations

import http.server
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import store
from tests.faults.breaking import arrays, finished_here

CLIPS = 6


class Service(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, but answers with the status that `refused` has for a name."""

    refused: dict[str, int]

    def send_head(self):  # type: ignore[no-untyped-def]
        status = self.refused.get(self.path, self.refused.get("*", 0))
        if not status:
            return super().send_head()
        self.send_error(status)
        return None

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def some(clips: Path, tmp_path: Path) -> Path:
    """A folder of a few clips: `0.mp4`, `1.mp4`, …"""
    (tmp_path / "mount").mkdir()
    for number, path in enumerate(sorted(clips.rglob("*.mp4"))[:CLIPS]):
        shutil.copy2(path, tmp_path / "mount" / f"{number}.mp4")
    return tmp_path / "mount"


@pytest.fixture
def service(some: Path) -> Iterator[tuple[str, dict[str, int]]]:
    """The folder's address, and what is to be refused there."""
    handler = type("Handler", (Service,), {"refused": {}})
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(handler, directory=str(some))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", handler.refused
    server.shutdown()
    server.server_close()


def listed(folder: Path, names: list[str]) -> Path:
    manifest = folder / "list.csv"
    lines = [f"{name},{('x', 'y')[i % 2]}" for i, name in enumerate(names)]
    manifest.write_text("\n".join(["path,label", *lines]) + "\n", encoding="utf-8")
    return manifest


def assert_kept(url: Path, before: dict[str, np.ndarray], *, gone: int = 0) -> None:
    """Every row is as it was made, but that the first `gone` ones are gone."""
    after = arrays(url)
    status = before.pop("status")
    expected = status.copy()
    expected[:gone] = store.GONE
    np.testing.assert_array_equal(after.pop("status"), expected)
    for name, values in before.items():
        np.testing.assert_array_equal(after[name], values, err_msg=name)
    before["status"] = status


@pytest.mark.long
def test_a_mount_that_is_away_takes_no_features(
    prefect_api: str, some: Path, tmp_path: Path
) -> None:
    manifest = listed(tmp_path, [f"mount/{number}.mp4" for number in range(CLIPS)])
    url = tmp_path / "s.zarr"
    assert finished_here(manifest, url).status == 0
    before = arrays(url)
    assert (before["status"] == store.READY).all()
    some.rename(tmp_path / "away")
    some.mkdir()  # what is left where nothing is mounted
    refused = finished_here(manifest, url)
    assert refused.status == 1, refused.err
    assert "6 of the 6 rows" in refused.err
    assert "--allow-gone" in refused.err
    assert_kept(url, before)
    marked = finished_here(manifest, url, "--allow-gone")
    assert (marked.status, marked.json["gone"], marked.json["planned"]) == (0, 6, 0)
    assert_kept(url, before, gone=6)
    again = finished_here(manifest, url)
    assert (again.status, again.json["gone"], again.json["planned"]) == (0, 0, 0)
    assert_kept(url, before, gone=6)
    some.rmdir()
    (tmp_path / "away").rename(some)
    back = finished_here(manifest, url)
    assert (back.status, back.json["returned"], back.json["planned"]) == (0, 6, 0)
    assert_kept(url, before)


@pytest.mark.long
def test_a_service_that_is_away_takes_no_features(
    prefect_api: str, service: tuple[str, dict[str, int]], tmp_path: Path
) -> None:
    address, refused = service
    manifest = listed(tmp_path, [f"{address}/{number}.mp4" for number in range(CLIPS)])
    url = tmp_path / "s.zarr"
    assert finished_here(manifest, url).status == 0
    before = arrays(url)
    refused["*"] = 503
    away = finished_here(manifest, url)
    assert away.status == 4, away.err
    assert "none of the 6 clips says whether it has changed" in away.err
    assert (away.json["unknown"], away.json["planned"]) == (6, 0)
    assert_kept(url, before)
    # One that is refused and one that is not there any more are told apart.
    refused.clear()
    refused["/5.mp4"], refused["/0.mp4"] = 403, 404
    some = finished_here(manifest, url)
    assert (some.status, some.json["unknown"], some.json["gone"]) == (0, 1, 1)
    assert some.json["planned"] == 0
    assert_kept(url, before, gone=1)
    refused.clear()
    back = finished_here(manifest, url)
    assert (back.json["returned"], back.json["unknown"], back.json["planned"]) == (1, 0, 0)
    assert_kept(url, before)
