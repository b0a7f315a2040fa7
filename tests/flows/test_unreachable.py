"""A run that reaches none of its clips has failed for its environment's reason, and says so."""

from __future__ import annotations

import contextlib
import functools
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest

import store
from tests.faults.breaking import finished_here


class Refusing(BaseHTTPRequestHandler):
    """403 for everything, as with a token that has expired."""

    def do_GET(self) -> None:
        self.send_error(403)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serving(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address of a server on this machine, for as long as it is entered."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def refusing() -> Iterator[str]:
    with serving(Refusing) as address:
        yield address


@pytest.mark.long
def test_where_every_clip_is_refused_the_run_has_failed_with_4(
    prefect_api: str, refusing: str, clips: Path, tmp_path: Path
) -> None:
    shutil.copytree(clips, tmp_path / "clips")
    manifest, url = tmp_path / "clips" / "list.csv", tmp_path / "s.zarr"
    names = [f"{refusing}/{number}.mp4" for number in range(6)]
    manifest.write_text("\n".join(["path", *names]) + "\n", encoding="utf-8")
    ended = finished_here(manifest, url)
    assert ended.status == 4, ended.err
    assert "none of the 6 clips could be reached" in ended.err
    assert ended.json["reasons"] == {"unreachable": 6}
    assert store.open(str(url)).counts()["failed"] == 6
    # One that stays out of reach beside others that are ready costs only itself.
    near = sorted(path.relative_to(clips).as_posix() for path in clips.rglob("*.mp4"))[:4]
    manifest.write_text("\n".join(["path", names[0], *near]) + "\n", encoding="utf-8")
    for _ in range(2):
        ended = finished_here(manifest, url, "--allow-gone")
        assert ended.status == 0, ended.err
    assert store.open(str(url)).counts()["ready"] == 4


class Site(SimpleHTTPRequestHandler):
    """Clips, as long as `answers`; then each kind of trouble that a site may have."""

    trouble = ""

    def do_GET(self) -> None:
        if self.trouble == "refuses":
            self.send_error(403)
        elif self.trouble == "fails":
            self.send_error(503)
        elif self.trouble == "hangs up":
            self.connection.close()
        else:
            super().do_GET()

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site(clips: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Site, "trouble", "")
    with serving(functools.partial(Site, directory=str(clips))) as address:
        yield address


@pytest.mark.long
def test_a_site_that_is_away_while_clips_are_listed_costs_no_row(
    prefect_api: str, site: str, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = sorted(path.relative_to(clips).as_posix() for path in clips.rglob("*.mp4"))[:4]
    manifest, url = tmp_path / "list.csv", tmp_path / "s.zarr"
    manifest.write_text("\n".join(["path", *(f"{site}/{name}" for name in names)]) + "\n")
    assert finished_here(manifest, url).status == 0
    before = store.open(str(url)).table()
    assert before["state"].astype(str).tolist() == ["ready"] * 4
    for trouble in ("refuses", "fails", "hangs up"):
        monkeypatch.setattr(Site, "trouble", trouble)
        ended = finished_here(manifest, url)
        assert ended.status == 4, ended.err
        assert "none of the 4 clips says whether it has changed" in ended.err
    monkeypatch.setattr(Site, "trouble", "")
    ended = finished_here(manifest, url)
    assert ended.status == 0, ended.err
    assert ended.json["outcome"] == "nothing to do"
    pd.testing.assert_frame_equal(store.open(str(url)).table(), before)


@pytest.mark.long
def test_a_mount_without_its_clips_stops_the_run_before_a_row_is_lost(
    prefect_api: str, clips: Path, tmp_path: Path
) -> None:
    shutil.copytree(clips, tmp_path / "mount")
    names = sorted(path.relative_to(clips).as_posix() for path in clips.rglob("*.mp4"))[:4]
    manifest, url = tmp_path / "list.csv", tmp_path / "s.zarr"
    manifest.write_text("\n".join(["path", *(f"mount/{name}" for name in names)]) + "\n")
    assert finished_here(manifest, url).status == 0
    (tmp_path / "mount").rename(tmp_path / "unmounted")
    ended = finished_here(manifest, url)
    assert ended.status == 1, ended.err
    assert "4 of the 4 rows" in ended.err
    assert "--allow-gone" in ended.err
    assert store.open(str(url)).counts()["ready"] == 4
