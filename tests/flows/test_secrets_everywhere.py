"""No secret that a run was given, by whatever way, is in any byte that it or what follows it leaves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

import store
from tests.buckets import FaultyBucket, faulty_bucket
from tests.flows.planting import FRAMES, left_by, planted
from tests.flows.planting import site as site
from tests.flows.running import run
from tests.secrets import files_of, search

AWS_SECRET = "aws+sEcReT/00-5be1f0a2c97d"
pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def s3() -> Iterator[FaultyBucket]:
    with faulty_bucket(AWS_SECRET) as found:
        yield found


def test_no_secret_is_in_what_is_made_from_a_store(site: str, clips: Path, tmp_path: Path) -> None:
    """A head, its predictions, a report: their folders, pages, tables, JSON and messages."""
    names = sorted(p.relative_to(clips).as_posix() for p in clips.rglob("*.mp4"))
    ways = ("of a clip", "of a clip in a config file", "of the clip to predict", "of no clip")
    secret = {f"signature {way}": planted(70 + number) for number, way in enumerate(ways)}
    stored, config, asked, missing = (quote(text, safe="") for text in secret.values())
    (tmp_path / "in").mkdir()
    manifest = tmp_path / "in" / "clips.csv"
    lines = (f'"{site}/{name}?sig={stored}",{name.split("/")[0]}' for name in names)
    manifest.write_text("\n".join(["path,label", *lines]))
    settings = tmp_path / "in" / "run.toml"
    settings.write_text(
        f'[features]\nvideos = "{site}/{names[0]}?X-Amz-Signature={config}"\nstore = "one.zarr"\n'
        'backbone = "frames"\nframes = 4\n'
    )
    work = tmp_path / "work"
    work.mkdir()
    words = ("--videos", str(manifest), "--store", "s.zarr", *FRAMES, "--fit", "squash")
    head = ("--head", "early_fusion", "--epochs", "1", "--name", "a")
    clip, none = f"{site}/{names[1]}?sig={asked}", f"{site}/nowhere.mp4?sig={missing}"
    said = {
        name: run(*given, cwd=work)
        for name, given in {
            "features": ("features", *words),
            "config": ("features", "--config", str(settings)),
            "train": ("train", "--store", "s.zarr", *head, "--json"),
            "predict": ("predict", "--run", "runs/a", "--video", clip, "--csv", "p.csv", "--json"),
            "no clip": ("predict", "--run", "runs/a", "--video", none, "--traceback"),
            "similar": ("similar", "--store", "s.zarr", "--video", clip, "--json"),
            "report": ("report", "--store", "s.zarr", "--runs", "runs", "--out", "report.html"),
            "compare": ("compare", "--runs", "runs", "--json"),
        }.items()
    }
    for name, done in said.items():
        assert (done.status != 0) == (name in ("no clip", "similar")), (name, done.err)
    assert list(work.glob("runs/a/*.json"))
    assert (work / "report.html").stat().st_size > 10_000
    assert search(left_by(work, said), secret) == []


def test_a_databases_password_is_in_no_message_and_no_file(clips: Path, tmp_path: Path) -> None:
    secret = {"flag": planted(90), "variable": planted(91), "password alone": planted(92)}
    hidden = {way: quote(text, safe="") for way, text in secret.items()}
    nowhere = "postgresql+asyncpg://me:{}@127.0.0.1:9/prefect"
    work = tmp_path / "work"
    (work / "prefect").mkdir(parents=True)
    own = {"PREFECT_HOME": str(work / "prefect"), "PREFECT_API_URL": ""}
    flag = ("ui", "--database", nowhere.format(hidden["flag"]))
    alone = ("ui", "--database", nowhere.format("${PREFECT_SERVER_DATABASE_PASSWORD}"))
    words = ("features", "--videos", str(clips), "--store", "s.zarr", *FRAMES)
    variable = {"PREFECT_API_DATABASE_CONNECTION_URL": nowhere.format(hidden["variable"])}
    password = {"PREFECT_SERVER_DATABASE_PASSWORD": secret["password alone"]}
    said = {
        "flag": run(*flag, cwd=work, env=own),
        "password alone": run(*alone, cwd=work, env=own | password),
        "variable": run(*words, cwd=work, env=own | variable),
    }
    for way, done in said.items():
        assert done.status == 4, (way, done.err)
        assert "Connect" in done.err, (way, done.err)
    printed = {f"{way}": (done.out + done.err).encode() for way, done in said.items()}
    assert search(files_of(work) | printed, secret) == []


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
                "a variable of the settings",
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
        # What a flag may not carry, a variable may not either; the flag given wins here.
        "PIXELS_ONCE_FEATURES_STORE": f"s3://me:{of('a variable of the settings')}@bucket/s.zarr",
    }
    secret["AWS_SESSION_TOKEN"] = environment["AWS_SESSION_TOKEN"]
    url = f"{s3.url}/clips.zarr"
    words = ("--videos", str(manifest), "--store", url, *FRAMES)
    said = {"features": run("features", *words, cwd=work, env=environment)}
    assert said["features"].status == 0, said["features"].err
    table = store.open(url).table()
    assert table["state"].astype(str).tolist() == ["ready"] * 4 + ["failed"] * 3
    assert table["reason"].tolist()[4:] == ["missing", "unreachable", "unreachable"]
    # The last one is a part of its file, as its fragment says.
    ids = [f"{site}/{name}" for name in names]
    assert table["video_id"].tolist()[:4] == [*ids[:3], f"{ids[3]}#t=0,1"]
    assert (table["mtime_ns"].iloc[:4] > 0).all()
    said["show"] = run("show", "--store", url, "--json", cwd=work, env=environment)
    said["verify"] = run("verify", "--store", url, "--json", cwd=work, env=environment)
    # A failing run, and a crash with its traceback, in which Python shows what it was given.
    failing = ("features", *words, "--retry", "all", "--max-failed", "0")
    said["failing"] = run(*failing, "--traceback", "--json", cwd=work, env=environment)
    assert said["failing"].status == 3, said["failing"].err
    crash = environment | {"PIXELS_ONCE_FAULTS": json.dumps({"*": "segfault"})}
    said["crash"] = run("features", *words, "--retry", "all", cwd=work, env=crash)
    lost = environment | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}
    said["lost"] = run("features", *words, "--traceback", cwd=work, env=lost)
    assert "Traceback" in said["lost"].err
    places = left_by(work, said) | s3.objects(url)
    assert len(places) > 40
    assert len(secret) >= 15
    assert search(places, secret) == []
