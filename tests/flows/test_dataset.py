"""Public data sets, from a local web server: fetched once, gone on with, checked, laid out."""

from __future__ import annotations

import csv
import hashlib
import io
import re
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from flows.cli import dataset as command
from flows.data import datasets
from flows.data.datasets import DATA_SETS, fetch
from flows.data.downloads import DownloadFailed, download
from pipeline.errors import ConfigError


class Site:
    """Files by name; `cut` ends answers after so many bytes, as a broken line does."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.cut = 0
        self.url = ""


@pytest.fixture
def site() -> Iterator[Site]:
    told = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = told.files.get(self.path.lstrip("/"))
            wanted = self.headers.get("Range", "")
            told.asked.append(wanted)
            if data is None:
                self.send_error(404)
                return
            tag = f'"{hash(data)}"'
            start = int(found[1]) if (found := re.fullmatch(r"bytes=(\d+)-", wanted)) else 0
            if self.headers.get("If-Range", tag) != tag:
                start = 0
            self.send_response(206 if start else 200)
            self.send_header("ETag", tag)
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            self.wfile.write(data[start : start + told.cut] if told.cut else data[start:])

        def log_message(self, *words: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield told
    server.shutdown()


def top5() -> bytes:
    """An archive as the tutorial's: flat train and test folders, and two CSVs that name the tags."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for split in ("train", "test"):
            lines = io.StringIO()
            table = csv.writer(lines)
            table.writerow(["", "video_name", "tag"])
            for number, tag in enumerate(("Punch", "Shave")):
                name = f"v_{tag}_g0{number}_{split}.avi"
                table.writerow([number, name, tag])
                _add(archive, f"{split}/{name}", f"{split}{tag}".encode())
            _add(archive, f"{split}.csv", lines.getvalue().encode())
    return packed.getvalue()


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def test_the_tutorials_archive_becomes_folders_per_split_and_class(
    site: Site, tmp_path: Path
) -> None:
    site.files["ucf101_top5.tar.gz"] = top5()
    got = fetch(DATA_SETS["ucf101-top5"], tmp_path / "d", site=site.url)
    assert (got.clips, got.classes, got.ucf_splits) == (4, 2, None)
    assert (got.videos / "train/Punch/v_Punch_g00_train.avi").read_bytes() == b"trainPunch"
    assert not (tmp_path / "d" / "archives").exists()
    asked = len(site.asked)
    assert fetch(DATA_SETS["ucf101-top5"], tmp_path / "d", site=site.url) == got
    assert len(site.asked) == asked  # nothing is fetched twice


def test_zip_archives_give_clips_by_class_and_split_files(site: Site, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("UCF-101/Archery/v_Archery_g01_c01.avi", b"clip")
        archive.writestr("ucfTrainTestlist/trainlist01.txt", "Archery/v_Archery_g01_c01.avi 1\n")
        archive.writestr("ucfTrainTestlist/classInd.txt", "1 Archery\n")
    site.files["all.zip"] = packed.getvalue()
    data = datasets.DataSet(
        name="x", clips=1, classes=1, size="", archives=("http://x/all.zip",), page=""
    )
    got = fetch(data, tmp_path / "d", site=site.url, keep=True)
    assert (got.videos / "Archery/v_Archery_g01_c01.avi").read_bytes() == b"clip"
    assert got.ucf_splits is not None
    assert {p.name for p in got.ucf_splits.iterdir()} == {"trainlist01.txt", "classInd.txt"}
    assert (tmp_path / "d/archives/all.zip").exists()


def test_a_broken_line_is_gone_on_with_where_it_broke(site: Site, tmp_path: Path) -> None:
    site.files["f"] = bytes(range(256)) * 40
    site.cut = 3000
    path = download(f"{site.url}/f", tmp_path / "f", pause_s=0)
    assert path.read_bytes() == site.files["f"]
    assert site.asked == ["", "bytes=3000-", "bytes=6000-", "bytes=9000-"]
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_a_file_with_another_digest_than_the_published_one_is_removed(
    site: Site, tmp_path: Path
) -> None:
    site.files["f"] = b"not what was published"
    right = hashlib.sha256(site.files["f"]).hexdigest()
    with pytest.raises(DownloadFailed, match="and not the published 000000000000…: it was removed"):
        download(f"{site.url}/f", tmp_path / "f", digest="0" * 64, pause_s=0)
    assert [p.name for p in tmp_path.iterdir() if p.suffix != ".tag"] == []
    assert download(f"{site.url}/f", tmp_path / "f", digest=right, pause_s=0).is_file()


def test_a_published_digest_is_compared_wherever_the_archive_comes_from(
    site: Site, tmp_path: Path
) -> None:
    site.files["UCF101TrainTestSplits-RecognitionTask.zip"] = b"other splits"
    splits = replace(DATA_SETS["ucf101"], archives=DATA_SETS["ucf101"].archives[1:])
    with pytest.raises(DownloadFailed, match=r"RecognitionTask\.zip has the SHA-256"):
        fetch(splits, tmp_path / "d", site=site.url)


def test_a_file_that_changed_meanwhile_begins_anew(site: Site, tmp_path: Path) -> None:
    site.files["f"] = b"new" * 100
    (tmp_path / "f.part").write_bytes(b"old" * 10)
    (tmp_path / "f.tag").write_text('"another"')
    assert download(f"{site.url}/f", tmp_path / "f", pause_s=0).read_bytes() == b"new" * 100


def test_what_is_not_there_is_said_with_both_ways_out(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed, match=r"answers 404 .*--site .*or put the file at"):
        download(f"{site.url}/none", tmp_path / "none", pause_s=0)


def test_no_server_is_said_after_a_few_tries(tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed, match="check the network and run this again"):
        download("http://127.0.0.1:9/f", tmp_path / "f", pause_s=0)


def test_a_broken_archive_is_removed_so_that_the_next_run_fetches_it(
    site: Site, tmp_path: Path
) -> None:
    site.files["ucf101_top5.tar.gz"] = top5()[:200]
    with pytest.raises(ConfigError, match="it was removed, run this again"):
        fetch(DATA_SETS["ucf101-top5"], tmp_path / "d", site=site.url)
    site.files["ucf101_top5.tar.gz"] = top5()
    assert fetch(DATA_SETS["ucf101-top5"], tmp_path / "d", site=site.url).clips == 4


def test_rar_without_a_tool_names_the_tools_before_anything_is_fetched(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.shutil, "which", lambda tool: None)
    with pytest.raises(ConfigError, match=r"bsdtar, unrar, 7z, unar .*apt-get install"):
        fetch(DATA_SETS["ucf50"], tmp_path / "d", site=site.url)
    assert site.asked == []


def test_an_archive_cannot_write_outside_its_folder(site: Site, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        _add(archive, "../../escaped.avi", b"x")
    site.files["ucf101_top5.tar.gz"] = packed.getvalue()
    with pytest.raises(ConfigError, match="cannot be unpacked"):
        fetch(DATA_SETS["ucf101-top5"], tmp_path / "a" / "d", site=site.url)
    assert not list(tmp_path.rglob("escaped.avi"))


def test_without_a_name_the_data_sets_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(command.Settings(), json=False) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in ("ucf101-top5", "ucf50", "ucf101", "13,320"))


@pytest.mark.parametrize("label", ["../../outside", "/outside", "..", "a/b", "a\\b"])
def test_a_class_in_an_archive_leads_nowhere_else(tmp_path: Path, label: str) -> None:
    unpacked, folder = tmp_path / "unpacked", tmp_path / "below" / "data"
    (unpacked / "train").mkdir(parents=True)
    (unpacked / "train" / "a.avi").write_bytes(b"clip")
    (unpacked / "train.csv").write_text(f"video_name,tag\na.avi,{label}\n")
    with pytest.raises(ConfigError, match="no name of a folder"):
        datasets.lay_out(unpacked, folder)
    assert [p.name for p in tmp_path.rglob("*.avi")] == ["a.avi"]
    assert not folder.exists()


def test_links_in_an_archive_are_left_behind(tmp_path: Path) -> None:
    unpacked, folder = tmp_path / "unpacked", tmp_path / "data"
    (unpacked / "Punch").mkdir(parents=True)
    (tmp_path / "private").write_text("of this machine")
    (unpacked / "Punch" / "a.avi").symlink_to(tmp_path / "private")
    (unpacked / "Punch" / "b.avi").write_bytes(b"clip")
    datasets.lay_out(unpacked, folder)
    assert [p.name for p in (folder / "clips").rglob("*.avi")] == ["b.avi"]
