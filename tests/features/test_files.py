"""Files that do not answer, or are no files, end in an error within a time limit."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.extract.setup import run_idle
from flows.settings.features import FeaturesSettings
from pipeline.errors import ConfigError, UnreadableClip
from pipeline.features import files
from pipeline.features.catalog import discover
from pipeline.features.decoding import FramePlan, read_clip
from pipeline.features.files import NoAnswer, NotRegular, is_reachable, read_start, sha256, stat_all

LIMIT_S = 1.0


@pytest.fixture
def stuck(tmp_path: Path) -> Iterator[Path]:
    """A mount whose server is stopped: every touch of it blocks in the kernel."""
    if shutil.which("bindfs") is None or not os.access("/dev/fuse", os.W_OK):
        pytest.skip("needs bindfs (apt-get install bindfs) and /dev/fuse to make a stuck mount")
    inside, mount = tmp_path / "inside", tmp_path / "mount"
    (inside / "Jump").mkdir(parents=True)
    (inside / "Jump" / "a.mp4").write_bytes(b"bytes")
    mount.mkdir()
    server = subprocess.Popen(["bindfs", "-f", "-o", "direct_io", str(inside), str(mount)])
    try:
        deadline = time.monotonic() + 20
        while not os.path.ismount(mount):
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.skip("this machine does not mount FUSE file systems")
            time.sleep(0.01)
        server.send_signal(signal.SIGSTOP)
        yield mount
    finally:
        with contextlib.suppress(ProcessLookupError):
            server.send_signal(signal.SIGCONT)
        subprocess.run(["fusermount", "-u", "-z", str(mount)], check=False, capture_output=True)
        server.kill()
        server.wait()
        files._blocked.clear()


def test_a_regular_file_is_read_and_hashed(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(os.urandom(9 << 20))
    assert sha256(str(path)) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_start(str(path), 5) == path.read_bytes()[:5]
    assert is_reachable(str(path))
    with pytest.raises(FileNotFoundError):
        sha256(str(tmp_path / "absent.mp4"))


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.mp4")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket.mp4"))
        for name in ("fifo.mp4", "socket.mp4", "."):
            assert not is_reachable(str(tmp_path / name))
    with pytest.raises(NotRegular, match="a FIFO"):
        sha256(str(tmp_path / "fifo.mp4"))
    with pytest.raises(NotRegular, match="a character device"):
        read_start("/dev/zero")
    with pytest.raises(ConfigError, match="cannot be a clip: it is a FIFO"):
        discover(str(tmp_path / "fifo.mp4"))


def test_a_stuck_mount_gives_no_answer_and_holds_nothing_up(
    stuck: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = str(stuck / "Jump" / "a.mp4")
    with monkeypatch.context() as patched:
        patched.setattr(files, "LIMIT_S", LIMIT_S)
        with pytest.raises(NoAnswer, match="no answer for 1 s"):
            read_start(clip)
    began = time.monotonic()
    for _ in range(1000):  # the folder is known to be stuck: nobody waits for it again
        assert not is_reachable(clip)
    assert time.monotonic() - began < files.LIMIT_S


def test_listing_a_stuck_mount_says_so(stuck: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LIMIT_S", LIMIT_S)
    with pytest.raises(ConfigError, match="gave no answer for 1 s"):
        discover(str(stuck))


def test_a_run_that_looks_for_work_leaves_a_stuck_mount_to_the_flow(
    stuck: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LIMIT_S", LIMIT_S)
    settings = FeaturesSettings(videos=str(stuck / "Jump"), store=str(tmp_path / "a.zarr"))
    assert run_idle(settings) is None


def test_the_files_behind_a_stuck_one_are_still_looked_at(
    stuck: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LIMIT_S", LIMIT_S)
    good = tmp_path / "good.mp4"
    good.write_bytes(b"12345")
    paths = [str(good), str(stuck / "Jump" / "a.mp4"), str(stuck / "Jump" / "b.mp4"), str(good)]
    states = stat_all([*paths, "\0", str(tmp_path / "absent")])
    assert [s.st_size for s in states if isinstance(s, os.stat_result)] == [5, 5]
    assert [type(s) for s in states[1:3]] == [NoAnswer, NoAnswer]
    assert [type(s) for s in states[4:]] == [ValueError, FileNotFoundError]


def test_a_clip_that_is_no_file_or_does_not_answer_has_a_reason(
    stuck: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LIMIT_S", LIMIT_S)
    os.mkfifo(tmp_path / "fifo.mp4")
    for path, reason in (
        (tmp_path / "fifo.mp4", "unreadable"),
        (tmp_path, "unreadable"),
        (stuck / "Jump" / "a.mp4", "unreachable"),
        (tmp_path / "absent.mp4", "missing"),
    ):
        with pytest.raises(UnreadableClip) as refusal:
            read_clip(str(path), FramePlan())
        assert refusal.value.reason == reason
