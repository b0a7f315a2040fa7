"""An export, a pack or an unpack that SIGKILL ends at one of three moments is whole when run again."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

import store
from flows.exchange.exporting import export_store
from tests.flows.test_exchange import made
from tests.store.stores import filled

ROOT = Path(__file__).parents[2]
SHEET = {"readme": "", "datasheet": {}}
KILL = """
import itertools, os, pathlib, sys
import store
from flows.exchange import exporting
from store import packing

exporting.UNIT = 4
owner, name, at = {owner}, {name!r}, {at}
real, count = getattr(owner, name), itertools.count(1)

def killing(*words, **more):
    if next(count) == at:
        os.kill(os.getpid(), 9)
    return real(*words, **more)

setattr(owner, name, killing)
{call}
"""


def killed(call: str, owner: str, name: str, at: int) -> None:
    code = KILL.format(owner=owner, name=name, at=at, call=call)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def moments(*cases: tuple[object, ...], plain: int) -> list[object]:
    """The cases, all but one for the long run."""
    marks = [() if i == plain else pytest.mark.long for i in range(len(cases))]
    return [pytest.param(*case, marks=mark) for case, mark in zip(cases, marks, strict=True)]


@pytest.mark.parametrize(
    ("format", "owner", "name", "at"),
    moments(
        *(
            (format, *moment)
            for format in ("npz", "hdf5", "parquet")
            for moment in (
                ("os", "replace", 3),  # a file is written and has no name yet
                ("exporting", "_text", 2),  # a unit is read back and not noted yet
                ("exporting", "_require_same", 3),  # a unit is written and not read back yet
            )
        ),
        plain=6,
    ),
)
def test_an_export_that_is_killed_goes_on_to_the_same_files(
    tmp_path: Path, monkeypatch, format: str, owner: str, name: str, at: int
):
    from flows.exchange import exporting

    monkeypatch.setattr(exporting, "UNIT", 4)
    url, out, whole = made(tmp_path / "clips.zarr"), tmp_path / "out", tmp_path / "whole"
    call = f"exporting.export_store({url!r}, {str(out)!r}, format={format!r})"
    killed(call, owner, name, at)
    assert files(out)
    export_store(url, str(out), format=format)
    export_store(url, str(whole), format=format)
    assert files(out) == files(whole)


@pytest.mark.parametrize(
    ("name", "at"), moments(("_put", 4), ("_require_sound", 1), ("_give_name", 1), plain=0)
)
def test_a_pack_that_is_killed_is_made_the_same_again(tmp_path: Path, name: str, at: int):
    url, out = filled(str(tmp_path / "clips.zarr"), rows=20), tmp_path / "out" / "a.zarr.zip"
    out.parent.mkdir()
    killed(f"store.pack({url!r}, {str(out)!r}, readme='', datasheet={{}})", "packing", name, at)
    assert not out.exists()
    store.pack(url, out, **SHEET)
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    store.pack(url, tmp_path / "b.zarr.zip", **SHEET)
    assert out.read_bytes() == (tmp_path / "b.zarr.zip").read_bytes()


@pytest.mark.parametrize(
    ("owner", "name", "at"),
    moments(
        ("pathlib.Path", "write_bytes", 5), ("packing", "sync_files", 1), ("os", "rename", 1),
        plain=1,
    ),
)  # fmt: skip
def test_an_unpack_that_is_killed_is_made_the_same_again(
    tmp_path: Path, owner: str, name: str, at: int
):
    url, packed = filled(str(tmp_path / "clips.zarr"), rows=20), tmp_path / "a.zarr.zip"
    store.pack(url, packed, **SHEET)
    out = tmp_path / "out" / "clips.zarr"
    out.parent.mkdir()
    killed(f"store.unpack({str(packed)!r}, {str(out)!r})", owner, name, at)
    assert not out.exists()
    store.unpack(str(packed), out)
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    store.unpack(str(packed), tmp_path / "whole.zarr")
    assert files(out) == files(tmp_path / "whole.zarr")
    assert store.verify(str(out)).ok
