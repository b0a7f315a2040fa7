"""Pictures from a real run, and what `report` and `similar` make of them."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

import store
from flows.cli import report, similar
from flows.extract.request import stage_of
from flows.report.vectors import clip_vectors
from flows.settings.features import FeaturesSettings
from pipeline.errors import ConfigError
from tests.flows import running


@pytest.fixture(scope="module")
def made(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `s.zarr`, made of the twelve numbered clips and one that cannot be read."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(clips, folder / "clips")
    (folder / "clips" / "Walk" / "text.mp4").write_text("no video")
    words = ("--videos", str(folder / "clips"), "--store", str(folder / "s.zarr"))
    few = ("--backbone", "frames", "--frames", "5", "--batch", "4")
    done = running.run_here("features", *words, *few)
    assert done.status == 0, done.err
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PIXELS_ONCE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_workers_keep_three_pictures_of_every_ready_clip(made: Path) -> None:
    source = store.open(str(made / "s.zarr"))
    table = source.table()
    pictures = store.read_previews(source.url, table.index)
    assert [len(some) for some in pictures] == [3 if s == "ready" else 0 for s in table["state"]]
    frame = matplotlib.image.imread(io.BytesIO(pictures[0][1]), format="jpg")
    assert frame.shape == (64, 64, 3)


def test_the_pictures_show_their_own_clip(made: Path) -> None:
    source = store.open(str(made / "s.zarr"))
    table = source.table().query("state == 'ready'")
    features = source.load(table.index).features
    for row, some in zip(
        range(len(table)), store.read_previews(source.url, table.index), strict=True
    ):
        seen = matplotlib.image.imread(io.BytesIO(some[1]), format="jpg").astype(int)
        assert np.abs(seen - features[row, 2].astype(int)).mean() < 8


def test_previews_can_be_left_out() -> None:
    plain = FeaturesSettings(backbone="frames", store="s", previews=False)
    assert not stage_of(plain, None)[1].previews
    assert stage_of(replace(plain, previews=True), None)[1].previews


def test_a_store_without_a_ready_row_has_a_report(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(made / "s.zarr", tmp_path / "none.zarr")
    with store.Writer.acquire(str(tmp_path / "none.zarr"), owner="test") as writer:
        writer.mark(np.arange(len(writer.table)), store.FAILED, reason="unreadable")
    settings = report.Settings(
        store=str(tmp_path / "none.zarr"), runs="none", out=str(tmp_path / "r.html")
    )
    assert report.run(settings, json=False) == 0
    assert "13 rows" in capsys.readouterr().out


def test_a_store_without_pictures_has_a_report_that_says_so(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(made / "s.zarr", tmp_path / "plain.zarr")
    shutil.rmtree(tmp_path / "plain.zarr" / "preview")
    settings = report.Settings(
        store=str(tmp_path / "plain.zarr"), runs="none", out=str(tmp_path / "r.html")
    )
    assert report.run(settings, json=False) == 0
    assert "no pictures: this store was made without previews" in capsys.readouterr().out


def test_the_report_says_what_is_in_the_store(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r.html"
    settings = report.Settings(
        store=str(made / "s.zarr"), runs=str(tmp_path / "none"), out=str(out)
    )
    assert report.run(settings, json=True) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["rows"], said["runs"], said["pictures"]) == (13, [], True)
    text = out.read_text()
    assert "Walk/text.mp4" in text
    assert "no decoder opens the file" in text
    assert text.count("data:image/jpeg") >= 36


def test_a_report_that_has_no_place_is_one_sentence(made: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name a file in a folder that is there"):
        report.run(
            report.Settings(store=str(made / "s.zarr"), out=str(tmp_path / "no/r.html")), json=False
        )


@pytest.mark.long
def test_an_id_a_row_and_the_clips_own_file_find_the_same(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = store.open(str(made / "s.zarr")).table()
    video = str(table["video_id"].iloc[3])
    found = []
    for words in (video, "3", str(made / "clips" / video)):
        settings = similar.Settings(
            store=str(made / "s.zarr"), video=words, top=3, out=str(tmp_path / "p.png")
        )
        assert similar.run(settings, json=True) == 0
        found.append(json.loads(capsys.readouterr().out)["similar"])
    assert found[0] == found[1]
    assert len(found[0]) == 3
    assert found[2][0]["video_id"] == video  # its own file is its nearest
    assert found[2][0]["similarity"] > 0.99
    assert [one["row"] for one in found[2][1:]] == [one["row"] for one in found[0][:2]]
    assert (tmp_path / "p.png").stat().st_size > 5000


def test_without_a_clip_the_neighbours_agreement_stands_beside_chance(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert similar.run(similar.Settings(store=str(made / "s.zarr")), json=True) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["all"]["clips"] == 12
    assert said["all"]["chance"] == pytest.approx(5 / 11)


@pytest.mark.parametrize(
    ("video", "sentence"),
    [
        ("nowhere.mp4", "neither a file, nor an id"),
        ("99", "there is no row 99"),
        ("12", "no features"),
    ],
)
def test_what_cannot_be_searched_for_is_one_sentence(made: Path, video: str, sentence: str) -> None:
    if video == "12":
        table = store.open(str(made / "s.zarr")).table()
        video = str(table.index[table["state"] == "failed"][0])
    with pytest.raises(ConfigError, match=sentence):
        similar.run(similar.Settings(store=str(made / "s.zarr"), video=video), json=False)


def test_vectors_are_kept_and_made_anew_only_where_a_row_changed(
    made: Path, tmp_path: Path
) -> None:
    url = str(tmp_path / "copy.zarr")
    shutil.copytree(made / "s.zarr", url)
    source = store.open(url)
    first = clip_vectors(source)
    read: list[tuple[int, int]] = []
    again = clip_vectors(source, on_progress=lambda done, total: read.append((done, total)))
    assert read == []
    assert np.array_equal(first.vectors, again.vectors)
    with store.Writer.acquire(url, owner="test") as writer:
        rows = np.array(writer.rows_of(0))
        features = store.read_batch(url, 0).copy()
        features[1] = 255 - features[1]
        digests = store.write_batch(url, 0, features, token=writer.token)
        writer.set(rows, digest=digests)
        writer.flush()
    changed = store.open(url)
    now = clip_vectors(changed, on_progress=lambda done, total: read.append((done, total)))
    assert read == [(1, 1)]
    assert np.flatnonzero((now.vectors != first.vectors).any(axis=1)).tolist() == [1]
    pooled = changed.load([1])
    plain = pooled.features[0][pooled.mask[0]].reshape(int(pooled.mask.sum()), -1).mean(axis=0)
    assert now.vectors[1] == pytest.approx(plain, rel=2e-3, abs=0.2)
