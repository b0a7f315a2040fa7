"""Remote clips: copied to a bounded scratch folder, decoded, removed; what fails costs one clip."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import socket
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pytest

from pipeline.errors import ConfigError, UnreadableClip
from pipeline.features import fetching, files
from pipeline.features.catalog import discover, remote
from pipeline.features.catalog.remote import size_and_time, without_secrets
from pipeline.features.catalog.table import UNKNOWN
from pipeline.features.decoders import DecoderPool
from pipeline.features.decoding.values import FileParts, FramePlan, Part
from pipeline.features.fetching import FetchingDecoders
from pipeline.spans import Span
from pipeline.spec import Sampling
from tests.features.clips import number_in, write_numbered_clip
from tests.waiting import wait_until


class Reading:
    """Decoders that read the file at once and remember how much lay in the scratch folder."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._lock = threading.Lock()
        self.seen: list[str] = []
        self.most_bytes = 0

    def submit(self, path: str, size_bytes: int = -1, part: Any = None) -> Future[Any]:
        with self._lock:
            self.seen.append(path)
            there = 0
            for file in self._scratch.rglob("*.mp4"):
                with contextlib.suppress(FileNotFoundError):  # of another clip, that is done now
                    there += file.stat().st_size
            self.most_bytes = max(self.most_bytes, there)
        done: Future[Any] = Future()
        done.set_result(Path(path).read_bytes())
        return done


@pytest.fixture
def clips() -> list[str]:
    """Twelve objects of 1000 bytes in memory."""
    place = fsspec.filesystem("memory")
    place.rm("/clips", recursive=True) if place.exists("/clips") else None
    urls = [f"memory://clips/Jump/v_Jump_g{n:02d}_c01.mp4" for n in range(12)]
    for number, url in enumerate(urls):
        place.pipe_file(url, bytes([number]) * 1000)
    return urls


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PIXELS_ONCE_SCRATCH", str(tmp_path / "scratch"))
    return tmp_path / "scratch"


def test_remote_clips_pass_through_a_bounded_folder_that_is_gone_afterwards(
    clips: list[str], scratch: Path
) -> None:
    reading = Reading(scratch)
    with FetchingDecoders(reading, scratch_bytes=2500) as fetching:
        futures = [fetching.submit(url, 1000) for url in clips]
        found: list[Any] = [future.result(timeout=60) for future in futures]
        assert found == [bytes([n]) * 1000 for n in range(12)]
    assert reading.most_bytes <= 2500
    assert fetching._held == 0
    assert not list(scratch.iterdir())


def test_a_remote_clip_of_which_a_decoder_died_still_has_its_hash(clips: list[str]) -> None:
    class Crashing:
        def submit(self, path: str, size_bytes: int = -1, part: Any = None) -> Future[Any]:
            failed: Future[Any] = Future()
            failed.set_exception(UnreadableClip("decoder_crashed"))
            return failed

    with FetchingDecoders(Crashing()) as fetching:
        error = fetching.submit(clips[3], 1000).exception(timeout=60)
    assert isinstance(error, UnreadableClip)
    assert error.sha256 == hashlib.sha256(bytes([3]) * 1000).hexdigest()


def test_a_larger_clip_than_the_folder_may_hold_goes_alone(clips: list[str], scratch: Path) -> None:
    with FetchingDecoders(Reading(scratch), scratch_bytes=10) as fetching:
        assert len(fetching.submit(clips[0], 1000).result(timeout=60)) == 1000  # type: ignore[arg-type]


def test_a_clip_that_is_gone_or_unreachable_says_so(clips: list[str], scratch: Path) -> None:
    with FetchingDecoders(Reading(scratch)) as fetching:
        with pytest.raises(UnreadableClip, match="missing"):
            fetching.submit("memory://clips/none.mp4").result(timeout=60)
        with pytest.raises(UnreadableClip, match="unreachable"):
            fetching.submit("nosuch://host/a.mp4").result(timeout=60)
    assert not list(scratch.iterdir())


def test_local_paths_go_straight_to_the_decoders(tmp_path: Path, scratch: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"film")
    reading = Reading(scratch)
    with FetchingDecoders(reading) as fetching:
        fetching.submit(str(tmp_path / "a.mp4")).result(timeout=60)
        fetching.submit(f"file://{tmp_path}/a.mp4").result(timeout=60)
    assert reading.seen == [str(tmp_path / "a.mp4")] * 2
    assert not scratch.exists()


def test_what_a_killed_process_left_is_removed_by_the_next(clips: list[str], scratch: Path) -> None:
    left = scratch / "pixels-once-clips-old"
    left.mkdir(parents=True)
    (left / ".lock").touch()
    (left / "half.mp4").touch()
    with FetchingDecoders(Reading(scratch)) as fetching:
        fetching.submit(clips[0], 1000).result(timeout=60)
    assert not left.exists()


def test_a_remote_folder_lists_like_a_local_one(clips: list[str]) -> None:
    catalog = discover("memory://clips")
    assert catalog["video_id"].tolist() == [url.removeprefix("memory://clips/") for url in clips]
    assert set(catalog["label"]) == {"Jump"}
    assert catalog["group"].iloc[3] == "g03"
    assert catalog["size_bytes"].tolist() == [1000] * 12
    assert (catalog["mtime_ns"] > 0).all()
    with pytest.raises(ConfigError, match="no clip under"):
        discover("memory://nothing-here")


def test_without_a_time_the_etag_tells_one_version_from_another() -> None:
    one, other = ({"size": 5, "ETag": tag} for tag in ("a", "b"))
    assert size_and_time(one) == size_and_time(dict(one))
    assert size_and_time(one)[1] != size_and_time(other)[1]
    assert max(size_and_time(one)[1], size_and_time(other)[1]) < 0, "never equal to a time"
    assert np.iinfo(np.int64).min <= size_and_time(one)[1]
    timed = {"size": 5, "ETag": "a", "LastModified": pd.Timestamp("2026-01-01", tz="UTC")}
    assert size_and_time(timed)[1] == pd.Timestamp("2026-01-01", tz="UTC").value


def test_messages_lose_signatures_and_passwords() -> None:
    said = without_secrets("GET https://me:pw@host/a.mp4?sig=abc failed: 403")
    assert said == "GET https://…@host/a.mp4?… failed: 403"
    url = "https://host/a.mp4?X-Amz-Signature=0a%2Fb1c2d3&v=1"
    for echo in ("0a/b1c2d3", "0a%2Fb1c2d3", "/a.mp4?X-Amz-Signature=0a%2Fb1c2d3&v=1", f"{url} at"):
        assert "b1c2d3" not in without_secrets(f"403, message='{echo} is wrong', v=1", url)
        assert "v=1" in without_secrets(f"403, message='{echo} is wrong', v=1", url)


def test_a_host_that_never_answers_is_asked_a_few_times_and_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(files, "LIMIT_S", 2.0)
    monkeypatch.setattr(remote, "_WARN_AFTER_S", 0.05)
    accepted: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:

        def accept() -> None:
            while True:
                try:
                    accepted.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        urls = [f"http://127.0.0.1:{server.getsockname()[1]}/{n}.mp4" for n in range(200)]
        with pytest.warns(remote.SlowListing, match="of 200 clips at URLs have answered"):
            states = remote.states_of(urls)
        assert states == [UNKNOWN] * 200
        assert len(accepted) < 40
        for connection in accepted:
            connection.close()


@pytest.fixture
def film(tmp_path: Path, clips: list[str]) -> str:
    """One object of 75 frames beside the others."""
    made = write_numbered_clip(tmp_path / "film.mp4", 75)
    url = "memory://clips/film.mp4"
    fsspec.filesystem("memory").pipe_file(url, made.read_bytes())
    return url


def test_a_remote_file_is_copied_once_for_all_of_its_parts(
    film: str, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies: list[str] = []
    copy = fetching._copy

    def counting(url: str, to: str) -> None:
        copies.append(url)
        copy(url, to)

    monkeypatch.setattr(fetching, "_copy", counting)
    plan = FramePlan(sampling=Sampling(steps=3), fit="whole", size=160)
    of = FileParts((Span(0.0, 1.0), Span(1.0, 2.0), Span(2.0, 3.0)))
    with DecoderPool(plan, processes=1) as pool, FetchingDecoders(pool) as decoders:
        asked = [decoders.submit(film, -1, Part(of, number)) for number in range(3)]
        read = [future.result(60) for future in asked]
        assert [r.frame_index.tolist() for r in read] == [[4, 12, 20], [29, 37, 45], [54, 62, 70]]
        assert [number_in(picture) for picture in read[2].frames] == [54, 62, 70]
        assert len({r.sha256 for r in read}) == 1
        assert copies == [film]
        wait_until(lambda: not list(scratch.rglob("*.mp4")))
        gone = FileParts((Span(0.0, 1.0), Span(1.0, 2.0)))
        error = decoders.submit("memory://clips/none.mp4", -1, Part(gone, 0)).exception(60)
        assert isinstance(error, UnreadableClip)
        assert error.reason == "missing"


def test_parts_that_are_never_asked_for_leave_no_copy(film: str, scratch: Path) -> None:
    plan = FramePlan(sampling=Sampling(steps=3), size=32)
    with DecoderPool(plan, processes=1) as pool, FetchingDecoders(pool) as decoders:
        of = FileParts((Span(0.0, 1.0), Span(1.0, 2.0)))
        decoders.submit(film, -1, Part(of, 0)).result(60).release()
        assert list(scratch.rglob("*.mp4"))
        del of
        gc.collect()
        wait_until(lambda: not list(scratch.rglob("*.mp4")))
