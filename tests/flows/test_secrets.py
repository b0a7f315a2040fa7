"""No secret that a run was given, by whatever way, is in any byte that the run leaves or says."""

from __future__ import annotations

import base64
import functools
import gzip
import http.server
import json
import os
import pickle
import sqlite3
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

import store
from tests.buckets import FaultyBucket, faulty_bucket
from tests.flows.running import Finished, run
from tests.secrets import database_of, files_of, search

FRAMES = ("--backbone", "frames", "--frames", "4", "--batch", "2")
AWS_SECRET = "aws+sEcReT/00-5be1f0a2c97d"


def planted(number: int) -> str:
    """A secret that no other text equals, with letters that every encoding writes differently."""
    return f"pLaNt/{number:02d}+é&{number * 7919 + 104729:08x}-hush"


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


@pytest.fixture(scope="module")
def s3() -> Iterator[FaultyBucket]:
    with faulty_bucket(AWS_SECRET) as found:
        yield found


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
    """Every byte in the run's folder and in Prefect's home, and what was printed."""
    home = Path(os.environ["PREFECT_HOME"])
    printed = {
        f"{name} ({stream})": getattr(done, stream).encode()
        for name, done in said.items()
        for stream in ("out", "err")
    }
    assert database_of(home), "Prefect's logs and artifacts"
    return {**files_of(folder), **files_of(home), **database_of(home), **printed}


def test_no_secret_of_a_run_is_in_any_byte_that_it_leaves(
    s3: FaultyBucket, site: str, clips: Path, tmp_path: Path
) -> None:
    names = sorted(p.relative_to(clips).as_posix() for p in clips.rglob("*.mp4"))[:4]
    secret = {
        way: planted(number)
        for number, way in enumerate(
            (
                "X-Amz-Signature of a clip",
                "sig= of a clip",
                "token= of a clip",
                "fragment and query of a clip",
                "signature of a clip that is not there",
                "signature of a clip that is refused",
                "signature of a clip at a host that does not answer",
                "another column of the manifest",
                "AWS_SESSION_TOKEN",
                "credentials file",
                "password in HTTP_PROXY",
                "password in HTTPS_PROXY",
                "~/.netrc",
                "a variable of another tool",
            )
        )
    } | {"AWS_SECRET_ACCESS_KEY": AWS_SECRET}

    def of(way: str) -> str:
        return quote(secret[way], safe="")

    rows = [
        f"{site}/{names[0]}?X-Amz-Credential=me&X-Amz-Signature={of('X-Amz-Signature of a clip')}",
        f"{site}/{names[1]}?sv=2024&sig={of('sig= of a clip')}",
        f"{site}/{names[2]}?token={of('token= of a clip')}",
        f"{site}/{names[3]}?key={of('fragment and query of a clip')}#t=0,1",
        f"{site}/nowhere.mp4?sig={of('signature of a clip that is not there')}",
        f"{site}/forbidden.mp4?sig={of('signature of a clip that is refused')}",
        f"http://127.0.0.1:9/a.mp4?sig={of('signature of a clip at a host that does not answer')}",
    ]
    (tmp_path / "in").mkdir()
    manifest = tmp_path / "in" / "clips.csv"
    extra = secret["another column of the manifest"]
    manifest.write_text("".join(["path,label,password\n", *(f'"{r}",x,"{extra}"\n' for r in rows)]))
    home = tmp_path / "in" / "home"
    (home / ".aws").mkdir(parents=True)
    (home / ".aws" / "credentials").write_text(
        f"[default]\naws_access_key_id = me\naws_secret_access_key = {secret['credentials file']}\n"
    )
    (home / ".netrc").write_text(f"machine 127.0.0.1 login me password {secret['~/.netrc']}\n")
    (home / ".netrc").chmod(0o600)
    work = tmp_path / "work"
    work.mkdir()
    environment = {
        "HOME": str(home),
        "AWS_SESSION_TOKEN": secret["AWS_SESSION_TOKEN"].replace("é", "e"),
        "HTTP_PROXY": f"http://me:{of('password in HTTP_PROXY')}@127.0.0.1:9",
        "HTTPS_PROXY": f"http://me:{of('password in HTTPS_PROXY')}@127.0.0.1:9",
        "NO_PROXY": "127.0.0.1,localhost",
        "SOME_API_KEY": secret["a variable of another tool"],
        "PIXELS_ONCE_SCRATCH": str(work / "scratch"),
    }
    secret["AWS_SESSION_TOKEN"] = environment["AWS_SESSION_TOKEN"]
    url = f"{s3.url}/clips.zarr"
    words = ("--videos", str(manifest), "--store", url, *FRAMES)
    said = {"features": run("features", *words, cwd=work, env=environment)}
    assert said["features"].status == 0, said["features"].err
    table = store.open(url).table()
    assert table["state"].astype(str).tolist() == ["ready"] * 4 + ["failed"] * 3
    assert table["reason"].tolist()[4:] == ["missing", "unreachable", "unreachable"]
    assert table["video_id"].tolist()[:4] == [f"{site}/{name}" for name in names]
    assert (table["mtime_ns"].iloc[:4] > 0).all()
    said["show"] = run("show", "--store", url, "--json", cwd=work, env=environment)
    places = left_by(work, said) | s3.objects(url)
    assert len(places) > 40
    assert len(secret) >= 15
    assert search(places, secret) == []


def test_a_secret_in_an_address_is_refused_or_left_out_before_anything_is_kept(
    site: str, clips: Path, tmp_path: Path
) -> None:
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
        said[way] = run("features", *given, cwd=tmp_path)
        assert said[way].status == 1, said[way].err
        assert "carries credentials" in said[way].err
    signed = f"{site}/{name}?X-Amz-Signature={hidden['signed clip']}"
    said["signed"] = run("features", "--videos", signed, "--store", "d.zarr", *FRAMES, cwd=tmp_path)
    assert said["signed"].status == 0, said["signed"].err
    assert store.open(tmp_path / "d.zarr").counts()["ready"] == 1
    said["served"] = run(
        "serve", "--videos", signed, "--store", "e.zarr", "--cron", "0 2 * * *", cwd=tmp_path
    )
    assert said["served"].status == 1
    assert "list the clip in a CSV manifest" in said["served"].err
    assert search(left_by(tmp_path, said), secret) == []
