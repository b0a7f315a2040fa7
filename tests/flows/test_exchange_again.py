"""Import, export and relabel again: after a kill, and after files, labels or rows have changed."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import store
import store.columns
from flows.cli.export import STORE_FORMATS
from flows.cli.main import main
from flows.exchange import exporting, formats
from flows.exchange.exporting import export_store
from flows.exchange.importing import import_clips
from flows.exchange.rows import Rules
from pipeline.errors import ConfigError
from tests.flows.test_exchange import contents, imported, save
from tests.sharing import others_long


class Killed(BaseException):
    """Stands for SIGKILL: nothing is written after it."""


def killed_at(moment: int, monkeypatch: pytest.MonkeyPatch, action: Any) -> bool:
    """Run `action` until its n-th write to the store, which does not happen, nor do later ones."""
    count = 0

    def stopping(real: Any) -> Any:
        def write(*words: Any, **more: Any) -> Any:
            nonlocal count
            count += 1
            if count >= moment:
                raise Killed
            return real(*words, **more)

        return write

    with monkeypatch.context() as patch:
        for owner, names in (
            (store.columns, ("commit_columns", "commit_steps", "commit_growth")),
            (store, ("write_batch",)),
            (store.Writer, ("set_attributes",)),
        ):
            for name in names:
                patch.setattr(owner, name, stopping(getattr(owner, name)))
        try:
            action()
        except Killed:
            return True
    return False


def four(folder: Path) -> Path:
    for i in range(4):
        save(folder / "A" / f"c{i}.npy", np.full((4, 3), i + 1, np.float32))
    return folder


@pytest.mark.long
def test_changed_files_are_read_again_wherever_an_import_was_killed(tmp_path: Path, monkeypatch):
    folder = four(tmp_path / "in")
    rules = {"steps": 4, "batch": 2}
    imported(folder, tmp_path / "before.zarr", **rules)
    save(folder / "A" / "c0.npy", np.full((3, 3), 9, np.float32))
    save(folder / "B" / "c9.npy", np.full((2, 3), 9, np.float32))
    imported(folder, tmp_path / "whole.zarr", **rules)
    whole, moment = contents(str(tmp_path / "whole.zarr")), 0
    while True:
        moment += 1
        url = str(tmp_path / f"{moment}.zarr")
        shutil.copytree(tmp_path / "before.zarr", url)
        if not killed_at(moment, monkeypatch, partial(imported, folder, url, **rules)):
            break
        imported(folder, url, **rules)
        assert contents(url) == whole, f"killed before write {moment}"
    assert moment > 8


def test_a_long_file_that_became_shorter_leaves_no_piece_ready(tmp_path: Path):
    url, file = str(tmp_path / "clips.zarr"), tmp_path / "in" / "x.npy"
    rules = Rules(store=url, steps=4, long="split", source="i3d")
    save(tmp_path / "in" / "y.npy", np.ones((4, 3), np.float32))
    for steps, ready in (
        (10, ["x#steps=0,4", "x#steps=4,8", "x#steps=8,10", "y"]),
        (6, ["x#steps=0,4", "x#steps=4,6", "y"]),
        (3, ["x", "y"]),
        (10, ["x#steps=0,4", "x#steps=4,8", "x#steps=8,10", "y"]),
    ):
        save(file, np.full((steps, 3), steps, np.float32))
        import_clips(str(tmp_path / "in"), rules)
        assert sorted(contents(url)) == ready
        table = store.open(url).table()
        gone = ~table["video_id"].isin(ready)
        assert set(table["state"][gone]) <= {"gone"}
        assert store.verify(url).ok
    save(tmp_path / "other" / "z.npy", np.ones((4, 3), np.float32))
    import_clips(str(tmp_path / "other"), rules)
    assert len(contents(url)) == 5  # pieces of what this source does not have stay


def changing(path: Path, count: int = 10) -> tuple[Path, str]:
    """A folder of clips and its store, the third clip a failed row."""
    for i in range(count):
        save(path / "in" / "A" / f"c{i:02d}.npy", np.full((1 + i % 3, 3), i, np.float32))
    save(path / "in" / "A" / "c02.npy", np.full((2, 3), np.nan, np.float32))
    imported(path / "in", path / "clips.zarr", steps=3)
    return path / "in", str(path / "clips.zarr")


def lines_of(out: Path) -> dict[str, dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    found = {line["id"]: line for line in lines}
    assert len(found) == len(lines)
    return found


@pytest.mark.parametrize("format", others_long(STORE_FORMATS, "npz", "parquet"))
def test_an_export_run_again_is_the_store_as_it_is_now(tmp_path: Path, format: str, monkeypatch):
    monkeypatch.setattr(exporting, "UNIT", 4)
    folder, url = changing(tmp_path)
    out = tmp_path / "out"
    export_store(url, str(out), format=format)

    def came_back() -> None:
        shutil.rmtree(tmp_path / "back.zarr", ignore_errors=True)
        assert imported(out, tmp_path / "back.zarr").failed == {}
        assert contents(str(tmp_path / "back.zarr")) == contents(url)
        assert set(lines_of(out)) == set(contents(url))
        named = {line["file"] for line in lines_of(out).values()}
        beside = {"manifest.jsonl", "export.json", "annotations.json"}
        files = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
        assert files - beside == named

    save(folder / "A" / "c02.npy", np.full((2, 3), 2, np.float32))
    imported(folder, url, steps=3)
    per_clip = format in ("npy", "npz", "activitynet")
    result = export_store(url, str(out), format=format)
    assert (result.written, result.kept) == ((1, 9) if per_clip else (4, 6))
    came_back()
    with store.Writer.acquire(url, owner="test") as writer:
        writer.set([0], label="NEW", split="test", group="g")
        writer.mark([1, 8, 9], store.GONE)
        writer.flush()
    result = export_store(url, str(out), format=format)
    assert (result.written, result.kept) == ((0, 7) if per_clip else (3, 4))
    came_back()
    assert lines_of(out)["A/c00"]["label"] == "NEW"
    if format == "activitynet":
        database = json.loads((out / "annotations.json").read_text())["database"]
        assert {v["annotations"][0]["label"] for v in database.values()} == {"A", "NEW"}
    if format == "hdf5":
        with h5py.File(out / "features-000000.h5") as file:
            assert file["000000000"].attrs["label"] == "NEW"


@pytest.mark.long
@pytest.mark.parametrize(
    "format",
    ["parquet", "npy", "webdataset"],
)
def test_wherever_an_export_was_killed_the_next_is_the_store(tmp_path, monkeypatch, format):
    monkeypatch.setattr(exporting, "UNIT", 4)
    folder, url = changing(tmp_path, 8)
    first = tmp_path / "first"
    export_store(url, str(first), format=format)
    save(folder / "A" / "c02.npy", np.full((2, 3), 2, np.float32))
    imported(folder, url, steps=3)
    with store.Writer.acquire(url, owner="test") as writer:
        writer.set([0], label="NEW")
        writer.mark([5], store.GONE)
        writer.flush()
    moment, killed = 0, True
    while killed:
        moment += 1
        out, count, killed = tmp_path / f"out{moment}", 0, False
        shutil.copytree(first, out)

        def counted(real: Any, *words: Any, moment: int = moment, **more: Any) -> Any:
            nonlocal count
            count += 1
            if count >= moment:
                raise Killed
            return real(*words, **more)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", partial(counted, os.replace))
            patch.setattr(exporting, "_text", partial(counted, exporting._text))
            try:
                export_store(url, str(out), format=format)
            except Killed:
                killed = True
        # What was exported meanwhile is the clip's or is refused, never another's.
        shutil.rmtree(tmp_path / "back.zarr", ignore_errors=True)
        imported(out, tmp_path / "back.zarr", source="i3d")
        back = store.open(str(tmp_path / "back.zarr")).load()
        names = store.open(str(tmp_path / "back.zarr")).table()["video_id"][back.rows]
        assert [int(name[-2:]) for name in names] == back.features[:, 0, 0].astype(int).tolist()
        export_store(url, str(out), format=format)
        shutil.rmtree(tmp_path / "back.zarr")
        imported(out, tmp_path / "back.zarr")
        assert contents(str(tmp_path / "back.zarr")) == contents(url), f"killed at {moment}"
    assert moment > 4


def test_an_export_of_another_store_is_refused(tmp_path: Path):
    for name in "ab":
        save(tmp_path / name / f"{name}.npy", np.full((2, 3), ord(name), np.float32))
        imported(tmp_path / name, tmp_path / f"{name}.zarr", source="i3d")
    out = str(tmp_path / "out")
    export_store(str(tmp_path / "a.zarr"), out, format="npy")
    with pytest.raises(ConfigError, match=r"export of another store.* name another OUT"):
        export_store(str(tmp_path / "b.zarr"), out, format="npy")
    assert set(lines_of(tmp_path / "out")) == {"a"}
    with pytest.raises(ConfigError, match="inside of the store"):
        export_store(str(tmp_path / "a.zarr"), str(tmp_path / "a.zarr" / "out"), format="npy")


def test_an_export_killed_before_its_folder_was_claimed_goes_on(tmp_path: Path):
    _, url = changing(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".export.json").write_text("{")
    assert export_store(url, str(tmp_path / "out"), format="npy").written == 9
    with (tmp_path / "out" / "manifest.jsonl").open("a") as file:
        file.write('nonsense\n[]\n{"row": "x"}\n')
    assert export_store(url, str(tmp_path / "out"), format="npy").kept == 9
    line = next(iter(lines_of(tmp_path / "out").values()))
    with (tmp_path / "out" / "manifest.jsonl").open("a") as file:
        for id_, row in itertools.product((5, None, [1]), (0, 77, 2**70, -1)):
            file.write(json.dumps({**line, "id": id_, "row": row}) + "\n")
    assert export_store(url, str(tmp_path / "out"), format="npy").kept == 9
    with (tmp_path / "out" / "manifest.jsonl").open("a") as file:
        file.write(json.dumps({**line, "id": "\ud800"}) + "\n")
    with pytest.raises(ConfigError, match=r"another store, with '\\ud800'"):
        export_store(url, str(tmp_path / "out"), format="npy")


def test_two_exports_do_not_write_into_one_folder(tmp_path: Path):
    _, url = changing(tmp_path)
    out = tmp_path / "out"
    export_store(url, str(out), format="npy")
    with (out / "export.json").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another export writes into"):
            export_store(url, str(out), format="npy")
    assert export_store(url, str(out), format="npy").kept == 9


def test_a_full_disk_names_the_folder_that_is_exported_to(tmp_path: Path, capsys, monkeypatch):
    _, url = changing(tmp_path)

    def full(*words: Any, **more: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(formats, "write_npy", full)
    out = str(tmp_path / "out")
    assert main(["export", "--store", url, "--format", "npy", "--out", out]) == 4
    error = capsys.readouterr().err
    assert f"{out} is full" in error
    assert error.strip().count("\n") == 0


def test_a_relabel_killed_before_the_classes_is_mended_by_the_next(tmp_path: Path, monkeypatch):
    imported(four(tmp_path / "in"), tmp_path / "clips.zarr", steps=4)
    url, labels = str(tmp_path / "clips.zarr"), tmp_path / "l.csv"
    labels.write_text("id,label\nA/c0,B\n")
    words = ["relabel", "--store", url, "--labels", str(labels)]
    for moment in (1, 2, 3):
        killed_at(moment, monkeypatch, lambda: main(words))
    assert store.open(url).classes == ["A"]
    assert main(words) == 0
    assert store.open(url).classes == ["A", "B"]
