"""Sources that change while they are imported, that hold nothing, or are imported in another way."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

import store
from flows.exchange import importing
from flows.exchange.exporting import export_store
from flows.exchange.importing import import_clips
from flows.exchange.rows import Rules
from pipeline.errors import ConfigError

IDS = [f"c{number}" for number in range(6)]


def array(name: str, more: int) -> np.ndarray:
    return np.full((1, 3), int(name[1:]) + more, np.float32)


def write_parquet(path: Path, ids: list[str], more: int = 0) -> None:
    rows = [array(name, more).tolist() for name in ids]
    pyarrow.parquet.write_table(pyarrow.table({"id": ids, "embedding": rows}), path)


def write_hdf5(path: Path, ids: list[str], more: int = 0) -> None:
    with h5py.File(path, "w") as file:
        for name in ids:
            file[name] = array(name, more)


def write_tar(path: Path, ids: list[str], more: int = 0) -> None:
    with tarfile.open(path, "w") as file:
        for name in ids:
            data = io.BytesIO()
            np.save(data, array(name, more))
            member = tarfile.TarInfo(f"{name}.npy")
            member.size = data.tell()
            data.seek(0)
            file.addfile(member, data)


WRITERS: dict[str, Callable[..., None]] = {
    "parquet": write_parquet,
    "h5": write_hdf5,
    "tar": write_tar,
}


def values(url: str) -> dict[str, float]:
    opened = store.open(url)
    table = opened.table()
    rows = table.index[table["state"] == "ready"].to_numpy()
    firsts = opened.load(rows).features[:, 0, 0].tolist()
    return dict(zip(table["video_id"][rows], firsts, strict=True))


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """What happens once the source was listed and before its rows are planned."""
    to_do: list[Callable[[], None]] = []
    create = store.create

    def created(*words: Any, **more: Any) -> Any:
        while to_do:
            to_do.pop()()
        return create(*words, **more)

    monkeypatch.setattr(importing.store, "create", created)
    return to_do


@pytest.mark.parametrize("ending", WRITERS)
@pytest.mark.parametrize(("ids", "more"), [(IDS[::-1], 0), (IDS, 100)], ids=["order", "values"])
def test_a_file_that_is_replaced_meanwhile_gives_no_wrong_row(
    tmp_path: Path, meanwhile: list[Callable[[], None]], ending: str, ids: list[str], more: int
) -> None:
    source, url = tmp_path / f"clips.{ending}", str(tmp_path / "s.zarr")
    WRITERS[ending](source, IDS)

    def replace() -> None:
        WRITERS[ending](tmp_path / "new", ids, more)
        os.replace(tmp_path / "new", source)

    meanwhile.append(replace)
    right = {name: float(int(name[1:]) + more) for name in IDS}
    done = import_clips(str(source), Rules(store=url, steps=1))
    assert values(url).items() <= right.items()
    assert "import again" in done.failures[0]["detail"]
    import_clips(str(source), Rules(store=url, steps=1))
    assert values(url) == right


@pytest.mark.parametrize("lines", [[2, 0, 1, 3], [0, 1]], ids=["another order", "shorter"])
def test_a_manifest_that_changes_meanwhile_gives_no_clip_anothers_frames(
    tmp_path: Path, meanwhile: list[Callable[[], None]], lines: list[int]
) -> None:
    folder, url = tmp_path / "clips", str(tmp_path / "s.zarr")
    folder.mkdir()
    said = []
    for name in IDS[:4]:
        np.save(folder / f"{name}.npy", array(name, 0))
        number = int(name[1:])
        said.append(
            json.dumps({"id": name, "file": f"{name}.npy", "frames": [number], "x": "y" * number})
        )
    (folder / "manifest.jsonl").write_text("\n".join(said) + "\n")

    def change() -> None:
        text = "\n".join(said[line] for line in lines) + "\n"
        (folder / "manifest.jsonl").write_text(text)

    meanwhile.append(change)
    done = import_clips(str(folder), Rules(store=url, steps=1))
    assert done.failed == {"unreadable": 4}
    import_clips(str(folder), Rules(store=url, steps=1))
    opened = store.open(url)
    rows = opened.table().index[opened.table()["state"] == "ready"].to_numpy()
    names = opened.table()["video_id"][rows]
    frames = opened.steps_of(rows)[0][:, 0].tolist()
    assert frames == [int(name[1:]) for name in names]
    assert len(rows) == len(lines)


@pytest.mark.parametrize("key", ["", "5", "1e3:4", "zzz", "1:2:3", f"{10**30}:5", "?a, b"])
def test_a_place_in_an_archive_that_makes_no_sense_costs_its_row(tmp_path: Path, key: str) -> None:
    write_tar(tmp_path / "clips.tar", IDS)
    folder, url = tmp_path / "out", str(tmp_path / "s.zarr")
    import_clips(str(tmp_path / "clips.tar"), Rules(store=url, steps=1))
    export_store(url, str(folder), format="webdataset")
    lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    lines[-1]["key"] = key
    (folder / "manifest.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    done = import_clips(str(folder), Rules(store=str(tmp_path / "t.zarr"), steps=1, batch=2))
    assert (done.ready, done.failed) == (5, {"unreadable": 1})


@pytest.mark.parametrize("ending", WRITERS)
def test_a_file_without_a_clip_is_refused_in_one_sentence(tmp_path: Path, ending: str) -> None:
    WRITERS[ending](tmp_path / f"none.{ending}", [])
    with pytest.raises(ConfigError, match=r"holds no|no lists|cannot be read"):
        import_clips(str(tmp_path / f"none.{ending}"), Rules(store=str(tmp_path / "s.zarr")))


def test_a_manifest_without_a_clip_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "manifest.jsonl").touch()
    with pytest.raises(ConfigError, match="holds no clip"):
        import_clips(str(tmp_path), Rules(store=str(tmp_path / "s.zarr")))


def test_arrays_that_lie_the_other_way_round_do_not_go_into_one_store(tmp_path: Path) -> None:
    """Where they have as many steps as numbers a step, their shapes say nothing."""
    folder, rules = tmp_path / "clips", Rules(store=str(tmp_path / "s.zarr"), steps=3)
    folder.mkdir()
    np.save(folder / "a.npy", np.arange(9.0).reshape(3, 3))
    import_clips(str(folder), rules)
    np.save(folder / "b.npy", np.arange(9.0).reshape(3, 3))
    with pytest.raises(store.StoreMismatch, match="without --transpose"):
        import_clips(str(folder), rules, transpose=True)
    with store.Writer.acquire(rules.store, owner="test") as writer:
        writer.set_attributes(import_transposed=None)  # as older versions have left it
    assert import_clips(str(folder), rules).kept == 1
