"""`--long split`: files that are longer than a sequence become consecutive rows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import store
from pipeline.features.decoders import DecoderPool
from tests.faults.breaking import finished_here
from tests.features.clips import write_numbered_clip
from tests.flows.running import run_here

RATE = 25
FPS2 = ("--sampling", "fps=2")
SPLIT = (*FPS2, "--long", "split")
# Frames → rows of four steps, 2 s each.
LENGTHS = {"Jump/long.mp4": 233, "Jump/short.mp4": 40, "Walk/next.mp4": 57, "Walk/two.mkv": 100}
ROWS = {
    "Jump/long.mp4": ["#t=0,2", "#t=2,4", "#t=4,6", "#t=6,8", "#t=8"],
    "Jump/short.mp4": [""],
    "Walk/next.mp4": ["#t=0,2", "#t=2"],
    "Walk/two.mkv": ["#t=0,2", "#t=2"],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(clips, store)."""
    here = tmp_path_factory.mktemp("long")
    for name, frames in LENGTHS.items():
        path = here / "clips" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_numbered_clip(path, frames, rate=RATE, options={"g": "12", "bf": "2"})
    done = finished_here(here / "clips", here / "s.zarr", *SPLIT)
    assert done.status == 0, done.err
    assert (done.json["ready"], done.json["failed"], done.json["warnings"]) == (10, 0, {})
    return here / "clips", here / "s.zarr"


def test_rows_are_those_that_arithmetic_says(made: tuple[Path, Path]) -> None:
    source = store.open(str(made[1]))
    table = source.table()
    assert table["video_id"].tolist() == [name + part for name in ROWS for part in ROWS[name]]
    assert table["label"].tolist() == [name.split("/")[0] for name in ROWS for _ in ROWS[name]]
    split = table["file"] != ""
    assert (table["group"] == table["file"]).all()
    assert table.loc[~split, "video_id"].tolist() == ["Jump/short.mp4"]
    # Less than one row of padding in each file: all rows but a file's last are full.
    mask = np.asarray(source.load(table.index).mask)
    steps = dict(zip(table["video_id"], mask.sum(axis=1).tolist(), strict=True))
    assert [steps[f"Jump/long.mp4{part}"] for part in ROWS["Jump/long.mp4"]] == [4, 4, 4, 4, 3]
    assert steps["Jump/short.mp4"] == 3
    assert [steps[f"Walk/next.mp4{part}"] for part in ROWS["Walk/next.mp4"]] == [4, 1]


@pytest.mark.long
def test_the_sequence_of_a_file_is_that_of_one_row_that_is_long_enough(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    reference = tmp_path / "whole.zarr"
    done = finished_here(made[0], reference, *FPS2, "--frames", "30")
    assert done.status == 0, done.err
    whole, parts = store.open(str(reference)), store.open(str(made[1]))
    ids = whole.table()["video_id"]
    for name in LENGTHS:
        row = ids.index[ids == name].to_numpy()
        read, (frames, times) = whole.load(row), whole.steps_of(row)
        sequence = parts.sequence(name)
        mask = read.mask[0]
        np.testing.assert_array_equal(sequence.frames, frames[0, mask])
        np.testing.assert_array_equal(sequence.times, times[0, mask])
        np.testing.assert_array_equal(sequence.features, read.features[0, mask])
        assert set(sequence.labels) == {name.split("/")[0]}
    with pytest.raises(ValueError, match=r"no row of 'nothing.mp4'"):
        parts.sequence("nothing.mp4")


@pytest.mark.long
def test_lengths_are_not_asked_again_while_the_bytes_stand(
    made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips, url = (Path(shutil.copytree(path, tmp_path / path.name)) for path in made)
    asked: list[str] = []
    rows = DecoderPool.rows

    def counting(self: DecoderPool, path: str, *arguments: Any, **named: Any) -> Any:
        asked.append(Path(path).name)
        return rows(self, path, *arguments, **named)

    monkeypatch.setattr(DecoderPool, "rows", counting)
    # A store that was made so goes on so.
    again = finished_here(clips, url, *FPS2)
    assert again.status == 0, again.err
    assert (again.json["outcome"], asked) == ("nothing to do", [])
    write_numbered_clip(clips / "Walk" / "next.mp4", 120, rate=RATE)
    longer = finished_here(clips, url, *FPS2)
    assert longer.status == 0, longer.err
    assert asked == ["next.mp4"] * (len(asked) or 1)
    states = store.open(str(url)).table().set_index("video_id")["state"]
    now = {name: states[name] for name in states.index if name.startswith("Walk/next")}
    assert now == {
        "Walk/next.mp4#t=0,2": "ready",
        "Walk/next.mp4#t=2": "gone",
        "Walk/next.mp4#t=2,4": "ready",
        "Walk/next.mp4#t=4": "ready",
    }
    sampled = run_here("verify", "--store", str(url), "--sample", "20", "--json")
    assert sampled.status == 0, sampled.err
    sample = sampled.json["sample"]
    assert (sample["checked"], sample["identical"], sample["skipped"]) == (11, 11, 0)


@pytest.mark.long
def test_a_file_that_could_not_say_its_length_is_asked_again(
    made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips, url = made[0], tmp_path / "s.zarr"
    monkeypatch.setenv("PIXELS_ONCE_FAULTS", json.dumps({"long.mp4": "segfault"}))
    failed = finished_here(clips, url, *SPLIT)
    assert (failed.json["ready"], failed.json["failed"]) == (5, 1)
    monkeypatch.delenv("PIXELS_ONCE_FAULTS")
    # While nothing is to be tried again, the length of a broken file is not asked in every run.
    assert finished_here(clips, url, *SPLIT).json["outcome"] == "nothing to do"
    mended = finished_here(clips, url, *SPLIT, "--retry", "decoder_crashed")
    assert mended.status == 0, mended.err
    assert mended.json["warnings"] == {}
    table = store.open(str(url)).table()
    ready = table.loc[table["state"] == "ready", "video_id"]
    assert sorted(ready) == sorted(name + part for name in ROWS for part in ROWS[name])


@pytest.mark.long
def test_without_it_a_clip_that_is_cut_short_says_so(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    done = finished_here(made[0] / "Jump", tmp_path / "s.zarr", *FPS2)
    assert done.status == 0, done.err
    assert done.json["warnings"] == {"cut_off": 1}
    # Steps at 0.25, …, 1.75; the next would have been at 2.25, of frame 56.
    assert done.json["cut_off_s"] == pytest.approx((233 - 56) / RATE, abs=1e-3)
    assert "8 s" not in done.out
    table = store.open(str(tmp_path / "s.zarr")).table()
    assert table["cut_off_s"].tolist() == pytest.approx([(233 - 56) / RATE, 0.0])


def test_it_needs_a_rule_that_goes_by_time(made: tuple[Path, Path], tmp_path: Path) -> None:
    refused = finished_here(made[0], tmp_path / "s.zarr", "--long", "split")
    assert refused.status == 1
    assert "--sampling uniform counts frames: use --sampling fps=N" in refused.err
