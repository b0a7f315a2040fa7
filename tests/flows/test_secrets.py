"""A signature or a password in an address is in no byte that a run leaves or says: the quick part."""

from __future__ import annotations

import base64
import gzip
import json
import pickle
import sqlite3
import zlib
from pathlib import Path
from urllib.parse import quote

import pytest

import store
from tests.flows.planting import FRAMES, left_by, planted
from tests.flows.planting import site as site
from tests.flows.running import run_here
from tests.secrets import database_of, search


@pytest.mark.parametrize(
    "written",
    [
        lambda text: text.encode(),
        lambda text: json.dumps({"a": text}).encode(),
        lambda text: json.dumps(json.dumps({"a": text})).encode(),
        lambda text: quote(text).encode(),
        lambda text: quote(text, safe="").encode(),
        lambda text: text.encode().hex().encode(),
        lambda text: text.encode("utf-16"),
        lambda text: base64.b64encode(text.encode()),
        lambda text: base64.b64encode(b"x" + text.encode() + b"yz"),
        lambda text: base64.b64encode(b"xy" + text.encode() + b"z"),
        lambda text: base64.urlsafe_b64encode(b"xy" + text.encode()),
        lambda text: pickle.dumps({"a": text}),
        lambda text: base64.b64encode(pickle.dumps([text])),
        lambda text: gzip.compress(json.dumps([text]).encode()),
        lambda text: zlib.compress(pickle.dumps([text])),
        lambda text: base64.b64encode(gzip.compress(pickle.dumps([text]))),
    ],
)
def test_the_search_finds_a_secret_however_it_is_written(tmp_path, written):
    text = planted(1)
    data = b"before " + written(text) + b" after" if written(text)[:1] != b"\x1f" else written(text)
    if written(text)[:1] == b"\x78":
        data = written(text)
    assert search({"here": data}, {"way": text})
    assert not search({"here": data}, {"way": planted(2)})
    database = sqlite3.connect(tmp_path / "prefect.db")
    database.execute("pragma journal_mode = wal")
    database.execute("create table log (body)")
    database.execute("insert into log values (?)", (b"\0" * 9000 + written(planted(3)),))
    database.execute("insert into log values (?)", (written(text),))
    database.commit()
    found = search(database_of(tmp_path), {"way": text})
    database.close()
    assert any("table log" in line for line in found)


def test_a_signature_is_in_no_byte_that_a_run_leaves(
    site: str, clips: Path, tmp_path: Path
) -> None:
    """The quick part: a run in this process with signed clips, good and bad."""
    names = sorted(p.relative_to(clips).as_posix() for p in clips.rglob("*.mp4"))[:2]
    secret = {"signature": planted(60), "signature of a bad clip": planted(61)}
    good, bad = (quote(text, safe="") for text in secret.values())
    rows = [*(f"{site}/{name}?X-Amz-Signature={good}" for name in names)]
    rows += [f"{site}/{name}.mp4?sig={bad}" for name in ("nowhere", "forbidden")]
    (tmp_path / "in").mkdir()
    manifest = tmp_path / "in" / "clips.csv"
    manifest.write_text("\n".join(["path,label", *(f'"{row}",x' for row in rows)]))
    work = tmp_path / "work"
    work.mkdir()
    words = ("--videos", str(manifest), "--store", str(work / "s.zarr"), *FRAMES)
    said = {"features": run_here("features", *words, "--json")}
    assert said["features"].json["ready"] == 2
    assert said["features"].json["failed"] == 2
    said["show"] = run_here("show", "--store", str(work / "s.zarr"), "--json")
    assert search(left_by(work, said), secret) == []


def test_a_secret_in_an_address_is_refused_or_left_out_before_anything_is_kept(
    site: str, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = next(p.relative_to(clips).as_posix() for p in clips.rglob("*.mp4"))
    secret = {
        way: planted(40 + number)
        for number, way in enumerate(
            (
                "user info of the clips",
                "user info of a chain",
                "user info of the store",
                "signed clip",
            )
        )
    }
    hidden = {way: quote(text, safe="") for way, text in secret.items()}
    said = {}
    for way, words in {
        "user info of the clips": ("--videos", f"https://me:{{}}@host/{name}", "--store", "a.zarr"),
        "user info of a chain": (
            *("--videos", "simplecache::https://me:{}@host/clips", "--store", "b.zarr"),
        ),
        "user info of the store": ("--videos", str(clips), "--store", "s3://me:{}@bucket/c.zarr"),
    }.items():
        given = [word.format(hidden[way]) for word in words]
        said[way] = run_here("features", *given)
        assert said[way].status == 1, said[way].err
        assert "carries credentials" in said[way].err
    signed = f"{site}/{name}?X-Amz-Signature={hidden['signed clip']}"
    said["signed"] = run_here("features", "--videos", signed, "--store", "d.zarr", *FRAMES)
    assert said["signed"].status == 0, said["signed"].err
    assert store.open(tmp_path / "d.zarr").counts()["ready"] == 1
    said["served"] = run_here(
        "serve", "--videos", signed, "--store", "e.zarr", "--cron", "0 2 * * *"
    )
    assert said["served"].status == 1
    assert "list the clip in a CSV manifest" in said["served"].err
    assert search(left_by(tmp_path, said), secret) == []
