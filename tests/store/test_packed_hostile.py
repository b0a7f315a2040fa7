"""A packed store that lies, a store that is written while it is packed, kills and full disks."""

from __future__ import annotations

import copy
import errno
import functools
import http.server
import os
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import store
from store import packing
from tests.store.stores import ROOT, arrays, clips, filled, put_batch, same

SHEET = {"readme": "# clips\n", "datasheet": {"name": "clips"}}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return Path(filled(str(tmp_path_factory.mktemp("pack") / "clips.zarr"), rows=10))


@pytest.fixture(scope="module")
def packed(whole: Path) -> Path:
    out = whole.with_name("clips.zarr.zip")
    store.pack(str(whole), out, **SHEET)
    return out


def beyond(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    member.file_size = member.compress_size = 8 << 40


def larger(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    member.file_size = 8 << 20


def shifted(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    member.file_size = member.compress_size = member.file_size + 64  # runs into the next one


def many(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    for number in range(300):
        other = copy.copy(member)
        other.filename = f"junk/{number}"
        archive.filelist.append(other)


def twice(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    archive.writestr("zarr.json", b"{}")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("lie", [beyond, larger, shifted, many, twice])
def test_members_that_do_not_fit_into_the_archive_are_damage(
    packed: Path, tmp_path: Path, lie: Callable[..., None]
):
    path = tmp_path / "x.zarr.zip"
    path.write_bytes(packed.read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        lie(archive, archive.getinfo("zarr.json"))
        archive._didModify = True
    for action in (store.open, store.verify):
        with pytest.raises(store.StoreDamaged, match=r"zarr\.json|junk/0"):
            action(str(path))
    with pytest.raises(store.StoreDamaged):
        store.unpack(str(path), tmp_path / "out.zarr")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.zarr.zip"]


def acting(monkeypatch: pytest.MonkeyPatch, at: str, action: Callable[[], None]) -> None:
    """Run `action` once, before the first member whose name begins with `at` is packed."""
    real, done = packing._put, []

    def put(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
        if name.startswith(at) and not done:
            done.append(name)
            action()
        real(archive, name, data)

    monkeypatch.setattr(packing, "_put", put)


@pytest.mark.parametrize("at", ["README", "frame_index", "mask", "zarr.json"])
@pytest.mark.parametrize("what", ["relabelled", "grown", "held"])
def test_a_store_that_is_written_while_it_is_packed_is_busy(
    tmp_path: Path, monkeypatch, at: str, what: str
):
    url, out = filled(str(tmp_path / "clips.zarr")), tmp_path / "x.zip"
    held: list[store.Writer] = []

    def write() -> None:
        writer = store.Writer.acquire(url, owner="another")
        if what == "held":
            held.append(writer)
            return
        with writer:
            if what == "grown":
                writer.append(clips(1, start=99))
            else:
                writer.set(range(4), label="jump", split="test", group="g")
                writer.flush()

    with monkeypatch.context() as patch:
        acting(patch, at, write)
        with pytest.raises(store.StoreBusy, match="pack it"):
            store.pack(url, out, **SHEET)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clips.zarr"]
    for writer in held:
        writer.release()
    store.pack(url, out, **SHEET)
    assert store.open(str(out)).table().equals(store.open(url).table())


def test_wherever_it_is_a_chunk_that_is_written_meanwhile_is_seen(tmp_path, monkeypatch, url):
    filled(url)
    out = tmp_path / "out"
    out.mkdir()

    def write() -> None:
        with store.Writer.acquire(url, owner="another") as writer:
            put_batch(writer, 1, version=1)

    store.pack(url, out / "x.zip", **SHEET)
    with monkeypatch.context() as patch:
        acting(patch, "mask", write)
        with pytest.raises(store.StoreBusy, match="was written while it was packed: pack it again"):
            store.pack(url, out / "y.zip", **SHEET)
    assert [path.name for path in out.iterdir()] == ["x.zip"]


def test_packing_into_the_stores_own_folder_is_refused(tmp_path: Path):
    url = filled(str(tmp_path / "clips.zarr"))
    before = sorted(Path(url).rglob("*"))
    for out in (Path(url) / "x.zip", Path(url) / "label" / ".." / "x.zip"):
        with pytest.raises(store.StoreMismatch, match="inside of the store"):
            store.pack(url, out, **SHEET)
    assert sorted(Path(url).rglob("*")) == before


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP, errno.EMLINK])
def test_a_disk_without_hard_links_is_packed_to(tmp_path: Path, whole, packed, monkeypatch, code):
    def refuse(*words: Any, **more: Any) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", refuse)
        store.pack(str(whole), tmp_path / "x.zip", **SHEET)
    assert (tmp_path / "x.zip").read_bytes() == packed.read_bytes()
    assert len(list(tmp_path.iterdir())) == 1

    def meanwhile(making: Path, target: Path) -> None:
        target.write_bytes(b"another's")
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", meanwhile)
        with pytest.raises(store.StoreMismatch, match="is there already"):
            store.pack(str(whole), tmp_path / "y.zip", **SHEET)
    assert (tmp_path / "y.zip").read_bytes() == b"another's"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_full_disk_is_that_of_the_target(tmp_path: Path, whole: Path, packed: Path, monkeypatch):
    def full(*words: Any, **more: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(packing, "_put", full)
    with pytest.raises(store.StoreUnwritable, match=rf"file {tmp_path}/x\.zip is full"):
        store.pack(str(whole), tmp_path / "x.zip", **SHEET)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(store.StoreUnwritable, match=rf"folder {tmp_path}/x\.zarr is full"):
        store.unpack(str(packed), tmp_path / "x.zarr")
    assert not list(tmp_path.iterdir())


KILLED = """
import os, sys, pathlib
import store
from store import packing
def die(*words, **more):
    os.kill(os.getpid(), 9)
def wait(*words, **more):
    print("waiting", flush=True)
    sys.stdin.read()
{patch}
{call}
"""


@pytest.mark.parametrize("what", ["pack", "unpack"])
def test_what_a_killed_one_left_is_removed_and_what_another_makes_is_not(
    tmp_path: Path, whole: Path, packed: Path, what: str
):
    out = tmp_path / "out.x"
    url = str(whole if what == "pack" else packed)
    owner = "packing._put" if what == "pack" else "pathlib.Path.write_bytes"
    sheet = ", readme='', datasheet={}" if what == "pack" else ""
    call = f"store.{what}({url!r}, {str(out)!r}{sheet})"

    def start(name: str) -> subprocess.Popen[bytes]:
        code = KILLED.format(patch=f"{owner} = {name}", call=call)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, **pipes)

    with start("die") as killed:
        assert killed.wait() == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    with start("wait") as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"waiting\n"
        (held,) = tmp_path.iterdir()
        assert held != left
        if what == "pack":
            store.pack(url, out, **SHEET)
        else:
            store.unpack(url, out)
        assert sorted(tmp_path.iterdir()) == sorted([held, out])
        if what == "unpack":
            other.stdin.close()
            assert b"is there already" in other.stderr.read()
        other.kill()
    if what == "unpack":
        assert same(arrays(str(out)), arrays(str(whole)))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_an_archive_that_was_cut_short_is_no_whole_one(packed: Path, tmp_path: Path, share: float):
    path, data = tmp_path / "x.zarr.zip", packed.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    for action in (store.open, store.verify, lambda url: store.unpack(url, tmp_path / "y")):
        with pytest.raises(store.StoreDamaged, match="no whole ZIP archive"):
            action(str(path))
    assert [path.name for path in tmp_path.iterdir()] == ["x.zarr.zip"]


class WithoutRanges(http.server.SimpleHTTPRequestHandler):
    """Python's own file server: it sends whole files only."""

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def without_ranges(packed: Path) -> Iterator[str]:
    handler = functools.partial(WithoutRanges, directory=str(packed.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_a_server_that_knows_no_ranges_is_named_with_the_remedy(without_ranges: str):
    for action in (store.open, store.verify, store.exists):
        with pytest.raises(store.StoreUnwritable, match=r"no ranges .* download it"):
            action(f"{without_ranges}/clips.zarr.zip")
