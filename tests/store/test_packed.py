"""A packed store: read as it is, from a disk and from a server; never written to."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import xarray
import zarr

import store
from store.errors import StorePacked
from store.packing import relative_ids
from tests.store.stores import arrays, clips, create, filled, put_batch, same

SHEET = {"readme": "# clips\n", "datasheet": {"name": "clips"}}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return Path(filled(str(tmp_path_factory.mktemp("pack") / "clips.zarr"), rows=61))


@pytest.fixture(scope="module")
def packed(whole: Path) -> Path:
    out = whole.with_name("clips.zarr.zip")
    store.pack(str(whole), out, **SHEET)
    return out


class Ranges(http.server.BaseHTTPRequestHandler):
    """A file server that knows ranges, as object stores and nginx do; Python's own does not."""

    folder = Path()
    sent = 0

    def do_HEAD(self) -> None:
        self.do_GET(head=True)

    def do_GET(self, head: bool = False) -> None:
        path = self.folder / self.path.lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        data, span = path.read_bytes(), self.headers.get("Range")
        self.send_response(206 if span else 200)
        if span:
            first, _, last = span.removeprefix("bytes=").partition("-")
            start = int(first) if first else len(data) - int(last)
            stop = min(int(last) + 1, len(data)) if first and last else len(data)
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
            data = data[start:stop]
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if not head:
            type(self).sent += len(data)
            self.wfile.write(data)

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture(scope="module")
def server(packed: Path):
    Ranges.folder = packed.parent
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ranges)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()
    thread.join()
    running.server_close()


def test_it_reads_as_the_store_does(whole: Path, packed: Path):
    one, other = store.open(str(whole)), store.open(str(packed))
    assert one.table().equals(other.table())
    assert (one.fingerprint, one.classes, one.counts()) == (
        *(other.fingerprint, other.classes, other.counts()),
    )
    rows = np.random.default_rng(0).permutation(61)
    assert one.load(rows).features.tobytes() == other.load(rows).features.tobytes()
    assert one.load().mask.tobytes() == other.load().mask.tobytes()
    assert [len(b) for b in other.batches(size=20, shuffle=True)] == [20, 20, 20, 1]
    assert store.verify(str(packed)).ok
    assert store.read_batch(str(packed), 1).tobytes() == store.read_batch(str(whole), 1).tobytes()
    assert store.read_datasheet(str(packed)) == {"name": "clips"}
    assert store.holder(str(packed)) is None


def test_it_is_stored_as_it_is_and_the_same_each_time(packed: Path, whole: Path, tmp_path: Path):
    with zipfile.ZipFile(packed) as archive:
        members = archive.infolist()
        assert {member.compress_type for member in members} == {zipfile.ZIP_STORED}
        assert [member.filename for member in members][:2] == ["README.md", "datasheet.json"]
        assert not [member for member in members if ".lease" in member.filename]
        assert archive.testzip() is None
    store.pack(str(whole), tmp_path / "again.zip", **SHEET)
    assert (tmp_path / "again.zip").read_bytes() == packed.read_bytes()
    with pytest.raises(store.StoreMismatch, match="is there already"):
        store.pack(str(whole), tmp_path / "again.zip", **SHEET)
    assert not list(packed.parent.glob(".*partial*"))


@pytest.mark.filterwarnings("ignore:Object at:UserWarning")
def test_xarray_opens_it_without_our_code(packed: Path, whole: Path):
    opened = xarray.open_zarr(zarr.storage.ZipStore(packed, mode="r"), consolidated=False)
    assert (opened.status == 1).sum() == 61
    features = store.open(str(whole)).load().features
    assert np.asarray(opened.features).tobytes() == features.tobytes()


def test_it_reads_over_http_in_ranges(packed: Path, server: str):
    url = f"{server}/clips.zarr.zip"
    opened = store.open(url)
    assert opened.table().equals(store.open(str(packed)).table())
    Ranges.sent = 0
    one = opened.load([17, 16])
    assert 0 < Ranges.sent < packed.stat().st_size / 10
    assert one.features.tobytes() == store.open(str(packed)).load([17, 16]).features.tobytes()
    assert len(opened.load()) == 61
    with pytest.raises(StorePacked, match="unpack --store http"):
        store.Writer.acquire(url, owner="me")
    with pytest.raises(store.StoreNotFound):
        store.open(f"{server}/none.zarr.zip")


@pytest.mark.parametrize("lease", [True, False])
def test_writing_is_refused_with_the_remedy(packed: Path, lease: bool):
    before = hashlib.sha256(packed.read_bytes()).hexdigest()
    with pytest.raises(StorePacked, match="pixels-once unpack --store"):
        store.Writer.acquire(str(packed), owner="me", lease=lease)
    with pytest.raises(StorePacked, match="pixels-once unpack --store"):
        store.write_batch(str(packed), 0, store.read_batch(str(packed), 0), token=None)
    assert hashlib.sha256(packed.read_bytes()).hexdigest() == before


def flip(path: Path, member: str, offset: int) -> None:
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo(member).header_offset
    data = bytearray(path.read_bytes())
    data[start + 30 + len(member) + offset] ^= 4
    path.write_bytes(bytes(data))


def test_one_flipped_bit_is_named(packed: Path, tmp_path: Path):
    copy = tmp_path / "clips.zarr.zip"
    copy.write_bytes(packed.read_bytes())
    flip(copy, "features/c.2.0.0", 35)
    report = store.verify(str(copy))
    assert report.damaged[["row", "what"]].values.tolist() == [
        [9, "features do not match their digest"]
    ]
    with pytest.warns(store.StoreWarning, match=r"\(rows 9\)"):
        assert len(store.open(str(copy)).load()) == 60
    with pytest.raises(store.StoreDamaged, match=r"c\.2\.0\.0 .* is damaged"):
        store.unpack(str(copy), tmp_path / "out.zarr")
    assert not (tmp_path / "out.zarr").exists()
    copy.write_bytes(packed.read_bytes())
    flip(copy, "label/c.0", 20)
    assert store.verify(str(copy)).columns == ["label"]


@pytest.mark.parametrize("data", [b"", b"nothing", b"PK\3\4 no archive"])
def test_what_is_no_archive_is_one_sentence(tmp_path: Path, data: bytes):
    path = tmp_path / "x.zarr.zip"
    path.write_bytes(data)
    with pytest.raises(store.StoreDamaged, match="no whole ZIP archive"):
        store.open(str(path))
    with zipfile.ZipFile(tmp_path / "y.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zarr.json", "{}" * 99)
    with pytest.raises(store.StoreDamaged, match=r"compressed members \(zarr.json\)"):
        store.open(str(tmp_path / "y.zip"))


def test_unpacked_it_is_the_store_again_and_takes_more(whole: Path, packed: Path, tmp_path: Path):
    out = tmp_path / "out.zarr"
    store.unpack(str(packed), out)
    assert same(arrays(str(out)), arrays(str(whole)))
    with store.Writer.acquire(str(out), owner="me") as writer:
        writer.append(clips(3, start=61))
        put_batch(writer, 15)
        put_batch(writer, 15)
    assert store.open(str(out)).counts()["ready"] == 64
    with pytest.raises(store.StoreMismatch, match="is there already"):
        store.unpack(str(packed), out)
    with pytest.raises(store.StoreMismatch, match="no packed store"):
        store.unpack(str(out), tmp_path / "other")


def test_a_member_that_leads_out_is_refused(packed: Path, tmp_path: Path):
    copy = tmp_path / "clips.zarr.zip"
    copy.write_bytes(packed.read_bytes())
    with zipfile.ZipFile(copy, "a") as archive:
        archive.writestr("../evil", b"x")
    with pytest.raises(store.StoreDamaged, match=r"'\.\./evil'"):
        store.unpack(str(copy), tmp_path / "a" / "out.zarr")
    assert not (tmp_path / "evil").exists()


def test_nothing_in_it_names_this_host(tmp_path: Path):
    url = str(tmp_path / "clips.zarr")
    create(url)
    table = clips(4)
    table["video_id"] = [f"/data/secret/{n}/a.mp4" for n in range(3)] + ["b.mp4"]
    with store.Writer.acquire(url, owner="test") as writer:
        writer.append(table)
        put_batch(writer, 0)
        writer.set_attributes(clips="/data/secret", first_stage={"weights": "/data/secret/w.h5"})
        store.add_test_set(writer, "t", {"video_ids": ["/data/secret/1/a.mp4", "b.mp4"]})
    store.pack(url, tmp_path / "clips.zip", **SHEET)
    opened = store.open(str(tmp_path / "clips.zip"))
    assert opened.table()["video_id"].tolist() == ["0/a.mp4", "1/a.mp4", "2/a.mp4", "b.mp4"]
    assert opened.test_sets["t"]["video_ids"] == ["1/a.mp4", "b.mp4"]
    assert "secret" not in json.dumps(opened.attributes)
    assert b"/data/" not in (tmp_path / "clips.zip").read_bytes()


def test_ids_stay_apart():
    assert relative_ids(["c.mp4", "/d/c.mp4"])[0] == "c.mp4"
    made = relative_ids(["c.mp4", "/d/c.mp4", "s3://b/c.mp4", "../../x/c.mp4"])
    assert len(set(made)) == 4
    assert not [name for name in made if name.startswith(("/", "..")) or "://" in name]


def test_a_damaged_store_is_not_packed(tmp_path: Path):
    url = filled(str(tmp_path / "clips.zarr"))
    path = Path(url) / "features" / "c.1.0.0"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with pytest.raises(store.StoreDamaged, match="1 rows of it are damaged"):
        store.pack(url, tmp_path / "x.zip", **SHEET)
    with store.Writer.acquire(url, owner="another"), pytest.raises(store.StoreBusy):
        store.pack(url, tmp_path / "x.zip", **SHEET)
    assert not list(tmp_path.glob("*.zip"))
