"""The commands that read take a packed store as it is, from a disk and by URL."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

import store
from flows.cli.main import main
from flows.exchange import datasheet
from tests.flows.stores import rising_or_falling
from tests.store.test_packed import server  # noqa: F401  (a fixture: needs `packed`)


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    url = rising_or_falling(folder / "clips.zarr")
    out = folder / "clips.zarr.zip"
    words = ["--license", "CC0", "--source", "drawn by a test"]
    assert main(["pack", "--store", url, "--out", str(out), *words]) == 0
    return out


def test_the_datasheet_says_what_is_in_it(packed: Path):
    with zipfile.ZipFile(packed) as archive:
        sheet = json.loads(archive.read("datasheet.json"))
        page = archive.read("README.md").decode()
    opened = store.open(str(packed))
    assert sheet["license"] == "CC0"
    assert sheet["rows"] == opened.counts()
    assert sheet["fingerprint"] == opened.fingerprint
    assert sheet["labels"] == {"falling": 24, "rising": 24}
    for words in ("CC0", "drawn by a test", opened.fingerprint, "| rising | 24 |"):
        assert words in page


def test_the_datasheet_is_of_what_is_packed(tmp_path: Path, capsys, monkeypatch):
    url = rising_or_falling(tmp_path / "clips.zarr")
    real = datasheet.readme_of

    def meanwhile(sheet: dict) -> str:
        with store.Writer.acquire(url, owner="another") as writer:
            writer.set([0], label="other")
            writer.flush()
        return real(sheet)

    with monkeypatch.context() as patch:
        patch.setattr(datasheet, "readme_of", meanwhile)
        assert main(["pack", "--store", url, "--out", str(tmp_path / "x.zip")]) == 1
    assert "pack it again" in capsys.readouterr().err
    assert not (tmp_path / "x.zip").exists()
    assert main(["pack", "--store", url, "--out", str(tmp_path / "x.zip")]) == 0
    assert store.read_datasheet(str(tmp_path / "x.zip"))["labels"]["other"] == 1


def test_show_verify_similar_and_report_read_it(packed: Path, tmp_path: Path, capsys):
    url = str(packed)
    assert main(["show", "--store", url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"]["ready"] == 48
    assert main(["verify", "--store", url]) == 0
    assert main(["similar", "--store", url, "--video", "clip-001.mp4", "--top", "3"]) == 0
    out = tmp_path / "report.html"
    assert main(["report", "--store", url, "--out", str(out), "--runs", str(tmp_path)]) == 0
    assert out.stat().st_size > 1000


@pytest.mark.parametrize("command", ["verify --repair", "forget --gone", "relabel --labels l.csv"])
def test_what_writes_is_refused_with_the_remedy(
    packed: Path, tmp_path, capsys, command, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("l.csv").write_text("id,label\nclip-001.mp4,x\n")
    copy = tmp_path / "clips.zarr.zip"
    data = bytearray(packed.read_bytes())
    data[data.index(b"features/c.1.0") + 40] ^= 1
    copy.write_bytes(bytes(data))
    assert main([*command.split(), "--store", str(copy)]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "packed" in error
    assert "pixels-once unpack --store" in error


@pytest.mark.long
def test_training_on_it_over_http_gives_the_run_of_the_store(packed, tmp_path, server):  # noqa: F811
    words = ["--head", "frame_average", "--epochs", "2", "--runs", str(tmp_path)]
    for name, url in (("here", str(packed)), ("there", f"{server}/clips.zarr.zip")):
        assert main(["train", "--store", url, "--name", name, *words]) == 0
    here, there = (
        json.loads((tmp_path / n / "metrics.json").read_text()) for n in ("here", "there")
    )
    assert here["test"] == there["test"]


def test_unpacked_it_is_written_to_again(packed: Path, tmp_path: Path):
    out = str(tmp_path / "clips.zarr")
    assert main(["unpack", "--store", str(packed), "--out", out]) == 0
    assert main(["forget", "--store", out, "--clips", "clip-001.mp4"]) == 0
    assert store.open(out).counts()["ready"] == 47
