"""Rows that are parts of files, from a manifest to a store and back."""

from __future__ import annotations

import os
import shutil
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import store
from flows.cli.forget import matching
from flows.extract import hashes
from tests.faults.breaking import STEPS, chunks, features, finished_here
from tests.features.clips import write_numbered_clip
from tests.flows.running import run_here
from tests.flows.sameness import contents
from tests.waiting import wait_until

RATE = 25
SPANS = {
    "one.mp4": [(0.0, 1.0), (0.5, 2.0), (2.0, 4.0), (3.0, 9.0), (1.0, 1.04)],
    "two ü#1.mp4": [(0.0, 2.0), (2.0, 4.0), (8.0, 9.0), (0.0, 4.0)],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips of 100 frames, each with keyframes and frames in another order than shown."""
    made = tmp_path_factory.mktemp("parts")
    for name in SPANS:
        write_numbered_clip(made / name, 100, rate=RATE, options={"g": "12", "bf": "2"})
    return made


def write_manifest(folder: Path, spans: dict[str, list[tuple[float, float]]]) -> Path:
    """The spans in turns: the rows of one file do not stand together in the manifest."""
    rows = [
        (name, *bounds, f"class {i % 2}")
        for i in range(max(map(len, spans.values())))
        for name, all_bounds in spans.items()
        for bounds in all_bounds[i : i + 1]
    ]
    path = folder / "parts.csv"
    pd.DataFrame(rows, columns=["path", "start", "end", "label"]).to_csv(path, index=False)
    return path


def frames_of(start: float, end: float) -> list[int]:
    """The frames of a part of a clip of 100 frames that `uniform` takes, counted apart."""
    inside = [i for i in range(100) if start <= i / RATE < end]
    if len(inside) <= STEPS:
        return inside
    return [inside[(2 * k + 1) * len(inside) // (2 * STEPS)] for k in range(STEPS)]


@pytest.fixture(scope="module")
def made(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(clips, store): a folder with a manifest, and the store that a run has made of it."""
    here = tmp_path_factory.mktemp("made")
    shutil.copytree(folder, here / "clips")
    url = here / "s.zarr"
    done = finished_here(write_manifest(here / "clips", SPANS), url)
    assert done.status == 0, done.err
    assert (done.json["ready"], done.json["failed"]) == (8, 1)
    return here / "clips", url


@pytest.fixture
def again(made: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """The same to change."""
    clips, url = (Path(shutil.copytree(path, tmp_path / path.name)) for path in made)
    for clip in clips.iterdir():  # `copytree` keeps times, but not to the nanosecond everywhere
        shutil.copystat(made[0] / clip.name, clip)
    return clips, url


def test_every_part_has_the_frames_that_arithmetic_says(made: tuple[Path, Path]) -> None:
    source = store.open(str(made[1]))
    table = source.table()
    # Rows of one file stand together, in the order of time.
    assert table["file"].tolist() == [*["one.mp4"] * 5, *["two ü#1.mp4"] * 4]
    assert table["start_s"].tolist() == [0, 0.5, 1, 2, 3, 0, 0, 2, 8]
    assert table["group"].tolist() == table["file"].tolist()
    index, seconds = source.steps_of(table.index)
    for row, clip in table.iterrows():
        frames = frames_of(clip["start_s"], clip["end_s"])
        count = len(frames)
        assert index[row, :count].tolist() == frames, clip["video_id"]
        assert (index[row, count:] == -1).all()
        np.testing.assert_allclose(seconds[row, :count], np.array(frames) / RATE, atol=1e-6)
    reasons = dict(zip(table["video_id"], table["reason"], strict=True))
    assert reasons["one.mp4#t=3,9"] == "fewer_frames"
    assert reasons["two ü#1.mp4#t=8,9"] == "empty_segment"
    assert [r for r in reasons.values() if r] == ["fewer_frames", "empty_segment"]
    assert table.groupby("file")["sha256"].nunique().tolist() == [1, 1]


def values_of(url: Path) -> dict[str, bytes]:
    """Every ready or gone row's features, by id."""
    source = store.open(str(url))
    table = source.table()
    rows = table.index[table["frames_decoded"] > 0]
    array = source._arrays["features"]
    return {table["video_id"][row]: np.asarray(array[int(row)]).tobytes() for row in rows}


def test_other_bounds_are_a_row_that_is_new_and_one_that_is_gone(
    again: tuple[Path, Path],
) -> None:
    clips, url = again
    before, table = values_of(url), store.open(str(url)).table()
    spans = {**SPANS, "one.mp4": [*SPANS["one.mp4"][:2], (2.0, 3.5), *SPANS["one.mp4"][3:]]}
    done = finished_here(write_manifest(clips, spans), url)
    assert done.status == 0, done.err
    assert (done.json["planned"], done.json["ready"], done.json["gone"]) == (1, 1, 1)
    now = store.open(str(url)).table()
    assert now["video_id"].iloc[-1] == "one.mp4#t=2,3.5"
    states = dict(zip(now["video_id"], now["state"], strict=True))
    assert states["one.mp4#t=2,4"] == "gone"
    after = values_of(url)
    assert {name: after[name] for name in before} == before
    same = now.iloc[:-1].drop(columns=["status", "state"])
    pd.testing.assert_frame_equal(same, table.drop(columns=["status", "state"]))


@pytest.mark.long
def test_the_bounds_of_an_id_of_its_own_may_change_in_its_row(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    clips, url = made[0], tmp_path / "s.zarr"
    manifest = clips / "named.csv"
    for bounds, frames in (((0, 1), 25), ((1, 3), 50), ((1, 3), 50)):
        text = "path,id,start,end\n" + "one.mp4,x,{},{}\n".format(*bounds) + "one.mp4,y,0,4\n"
        manifest.write_text(text, encoding="utf-8")
        done = finished_here(manifest, url)
        assert done.status == 0, done.err
        table = store.open(str(url)).table()
        assert table["video_id"].tolist() == ["x", "y"]
        assert table["frames_decoded"].tolist() == [frames, 100]
        assert table[["start_s", "end_s"]].iloc[0].tolist() == list(bounds)
    assert done.json["outcome"] == "nothing to do"


@pytest.mark.long
def test_a_file_is_hashed_once_a_run_whatever_happened_to_it(
    again: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches have four rows, so both files have rows in two of them."""
    clips, url = again
    hashed: Counter[str] = Counter()
    sha256 = hashes.sha256

    def counting(path: str) -> str:
        hashed[Path(path).name] += 1
        return sha256(path)

    monkeypatch.setattr(hashes, "sha256", counting)
    one, manifest = clips / "one.mp4", write_manifest(clips, SPANS)
    before = values_of(url)
    os.utime(one)
    touched = finished_here(manifest, url)
    assert touched.status == 0, touched.err
    assert (touched.json["planned"], dict(hashed)) == (0, {"one.mp4": 1})
    assert values_of(url) == before
    # Other bytes of the same length: all rows of the file again.
    data = bytearray(one.read_bytes())
    at = data.index(b"Lavc") if b"Lavc" in data else len(data) - 9
    data[at] ^= 1
    one.write_bytes(bytes(data))
    hashed.clear()
    changed = finished_here(manifest, url)
    assert changed.status == 0, changed.err
    assert (changed.json["planned"], dict(hashed)) == (5, {"one.mp4": 1})
    table = store.open(str(url)).table()
    assert table.groupby("file")["sha256"].nunique().tolist() == [1, 1]
    assert table["sha256"].iloc[0] == sha256(str(one))


@pytest.mark.long
def test_whole_files_and_then_their_parts_are_rows_side_by_side(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    clips, url = made[0], tmp_path / "s.zarr"
    assert finished_here(clips / "one.mp4", url).status == 0
    before = values_of(url)
    manifest = clips / "some.csv"
    manifest.write_text("path,start,end\none.mp4,0,1\n", encoding="utf-8")
    refused = finished_here(manifest, url)
    assert refused.status == 1
    assert "--allow-gone" in refused.err
    manifest.write_text("path,start,end\none.mp4,0,1\none.mp4,,\n", encoding="utf-8")
    done = finished_here(manifest, url)
    assert done.status == 0, done.err
    assert (done.json["ready"], done.json["gone"]) == (1, 0)
    assert values_of(url)["one.mp4"] == before["one.mp4"]


@pytest.mark.long
def test_verify_reads_parts_again_and_repair_makes_them_again(again: tuple[Path, Path]) -> None:
    clips, url = again
    sampled = run_here(
        "verify", "--store", str(url), "--sample", "20", "--videos", f"{clips}/parts.csv", "--json"
    )
    assert sampled.status == 0, sampled.err
    sample = sampled.json["sample"]
    assert (sample["checked"], sample["identical"], sample["skipped"]) == (8, 8, 0)
    before = values_of(url)
    chunk = sorted((url / "features").glob("c.0.*"))[0]
    data = bytearray(chunk.read_bytes())
    data[5] ^= 255
    chunk.write_bytes(bytes(data))
    repaired = run_here("verify", "--store", str(url), "--repair", "--json")
    assert repaired.json["repaired"] == 1
    done = finished_here(clips / "parts.csv", url)
    assert (done.json["planned"], done.json["ready"]) == (1, 1)
    assert values_of(url) == before


def test_ids_with_commas_can_be_named(made: tuple[Path, Path]) -> None:
    ids = ["a.mp4#t=1,3", "a.mp4#t=1", "3", "b.mp4#frames=10,20", "c,d.mp4"]
    for text, right in (
        ("a.mp4#t=1,3", {"a.mp4#t=1,3"}),
        ("a.mp4#t=1", {"a.mp4#t=1"}),
        ("3, a.mp4#t=1", {"3", "a.mp4#t=1"}),
        ("a.mp4#t=1,3,b.mp4#frames=10,20,3", {"a.mp4#t=1,3", "b.mp4#frames=10,20", "3"}),
        ("a*", {"a.mp4#t=1,3", "a.mp4#t=1"}),
        ("*#t=*,3", {"a.mp4#t=1,3"}),
    ):
        assert matching(ids, text, "s.zarr") == right
    dry = ("--dry-run", "--json")
    done = run_here("forget", "--store", str(made[1]), "--clips", "one.mp4#t=0,1", *dry)
    assert (done.status, done.json["chosen"]) == (0, 1), done.err


def test_the_manifest_of_parts_relabels_them(again: tuple[Path, Path]) -> None:
    clips, url = again
    table = pd.read_csv(clips / "parts.csv").assign(label="other")
    table.loc[0, "label"] = "first"
    table.to_csv(clips / "labels.csv", index=False)
    words = ("relabel", "--store", str(url), "--labels", str(clips / "labels.csv"), "--json")
    done = run_here(*words)
    assert done.status == 0, done.err
    assert (done.json["unknown"], done.json["changed"]) == ([], {"label": 9})
    labels = store.open(str(url)).table().set_index("video_id")["label"]
    assert labels["one.mp4#t=0,1"] == "first"
    assert set(labels.drop("one.mp4#t=0,1")) == {"other"}


def test_show_counts_files_and_export_writes_a_file_for_each_part(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    shown = run_here("show", "--store", str(made[1]), "--json")
    assert (shown.json["parts"], shown.json["files"]) == (9, 2)
    assert shown.json["clips_bytes"] == sum((made[0] / name).stat().st_size for name in SPANS)
    out = tmp_path / "out"
    done = run_here("export", "--store", str(made[1]), "--format", "npz", "--out", str(out))
    assert done.status == 0, done.err
    source = store.open(str(made[1]))
    table = source.table()
    for row in table.index[table["state"] == "ready"]:
        with np.load(out / f"{table['video_id'][row]}.npz") as file:
            read = source.load([row])
            np.testing.assert_array_equal(file["features"], read.features[0, read.mask[0]])
            assert file["times"][0] >= table["start_s"][row] - 1e-6


@pytest.mark.long
def test_a_run_that_was_killed_goes_on_to_the_same_store(folder: Path, tmp_path: Path) -> None:
    clips = Path(shutil.copytree(folder, tmp_path / "clips"))
    spans = {name: [(i / 10, i / 10 + 1.5) for i in range(12)] for name in SPANS}
    manifest = write_manifest(clips, spans)
    url, reference = tmp_path / "killed.zarr", tmp_path / "whole.zarr"
    process = features(manifest, url)
    wait_until(lambda: chunks(url) >= 2, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert chunks(url) < 6 or store.open(str(url)).counts()["ready"] < 24
    for place in (url, reference):
        done = finished_here(manifest, place)
        assert done.status == 0, done.err
    assert contents(str(url)) == contents(str(reference))
    assert store.verify(str(url)).ok
