"""`--store 'shards/*.zarr'` and `features --shard`, from the command line."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import store
from flows.extract.listing import find_clips
from flows.settings.features import FeaturesSettings
from pipeline.errors import ConfigError
from pipeline.features.catalog.shares import Share
from pipeline.heads.saved import load_run
from tests.features.clips import write_numbered_clip
from tests.flows.running import Finished, run, run_here
from tests.flows.stores import STEPS, WIDTH, rising_or_falling

FRAMES = ("--backbone", "frames", "--frames", "4", "--batch", "2")
TRAIN = ("--head", "gru", "--units", "8,4", "--epochs", "3", "--overwrite")


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder: a store of 48 clips, and the same clips in three shards. Not to be changed."""
    folder = tmp_path_factory.mktemp("stores")
    one = store.open(rising_or_falling(folder / "one.zarr"))
    (folder / "shards").mkdir()
    for number in (1, 2, 3):
        share = Share(number, 3)
        rows = np.flatnonzero(share.members(one.table()))
        assert 0 < len(rows) < 48
        copied(one, rows, folder / "shards" / f"{share.name}.zarr")
    return folder


@pytest.fixture
def folder(stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copies of `stores`; the current folder."""
    shutil.copytree(stores, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def copied(one: store.Store, rows: np.ndarray, path: Path) -> None:
    """A store of these rows of another."""
    store.create(
        str(path),
        layout=store.Layout(steps=STEPS, shape=(WIDTH,), batch=16),
        spec=one.spec,
        fingerprint=one.fingerprint,
        software={},
    )
    loaded = one.load(rows)
    frames, times = one.steps_of(rows)
    with store.Writer.acquire(str(path), owner="test") as writer:
        writer.append(one.table().loc[rows].drop(columns="state"))
        for batch in range(-(-len(rows) // 16)):
            at = np.array(writer.rows_of(batch))
            features = loaded.features[at]
            writer.set(at, digest=store.write_batch(str(path), batch, features, token=writer.token))
        every = np.arange(len(rows))
        writer.put_steps(every, loaded.mask, frames, times)
        writer.mark(every, store.READY)
        writer.flush()


@pytest.mark.parametrize("asked", [{"per_class": 2}, {"limit": 7}, {"classes": "b"}])
def test_a_number_of_clips_is_that_of_all_shards_together(tmp_path, asked) -> None:
    for name in (f"{label}/{number}.mp4" for label in "abc" for number in range(9)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")

    def wanted(shard: str) -> set[str]:
        settings = FeaturesSettings(videos=str(tmp_path), shard=shard, store="s.zarr", **asked)
        catalog, mask = find_clips(settings, None)
        return set(catalog["video_id"][mask])

    each = [wanted(f"{number}/3") for number in (1, 2, 3)]
    assert sum(map(len, each)) == len(set.union(*each))
    assert set.union(*each) == wanted("")


def weights(folder: Path) -> list[bytes]:
    return [weight.tobytes() for weight in load_run(folder).model.get_weights()]


def same_runs(one: Path, all_of_them: Path) -> None:
    """Two runs are one to the bit: weights, probabilities, curves, who trained and who tested."""
    assert weights(one) == weights(all_of_them)
    for name in ("predictions.csv", "clips.csv"):
        pd.testing.assert_frame_equal(
            pd.read_csv(one / name), pd.read_csv(all_of_them / name), check_exact=True
        )
    curves = [pd.read_csv(each / "history.csv") for each in (one, all_of_them)]
    for column in ("loss", "val_loss"):
        assert curves[0][column].tolist() == curves[1][column].tolist()


@pytest.mark.long
def test_a_head_trained_over_shards_is_the_head_of_one_store(folder: Path) -> None:
    for name, stores in (("one", "one.zarr"), ("all", "shards/*.zarr")):
        done = run_here("train", "--store", stores, *TRAIN, "--name", name)
        assert done.status == 0, done.err
    same_runs(folder / "runs/one", folder / "runs/all")
    kept = json.loads((folder / "runs/all/config.json").read_text())["store"]
    assert kept["url"] == str(folder / "shards/*.zarr")
    assert [Path(each["url"]).name for each in kept["shards"]] == [
        "1-of-3.zarr",
        "2-of-3.zarr",
        "3-of-3.zarr",
    ]
    assert {each["fingerprint"] for each in kept["shards"]} == {kept["fingerprint"]}
    compared = run_here("compare", "--json").json
    (board,) = compared["boards"]
    assert {line["run"] for line in board["runs"]} == {"one", "all"}


def test_show_similar_verify_and_report_over_shards(folder: Path) -> None:
    shards = ("--store", "shards/*.zarr")
    shown = run_here("show", *shards, "--json").json
    assert shown["rows"]["ready"] == 48
    assert len(shown["stores"]) == 3
    assert "(3 stores)" in run_here("show", *shards).out
    words = ("similar", "--video", "clip-005.mp4", "--top", "4", "--out", "", "--json")
    found = [run_here(*words, "--store", url).json for url in ("one.zarr", "shards/*.zarr")]
    assert found[0]["similar"] == found[1]["similar"]
    sound = run_here("verify", *shards, "--json")
    assert (sound.status, sound.json["checked"], sound.json["sound"]) == (0, 48, 48)
    with store.Writer.acquire("shards/2-of-3.zarr", owner="test") as writer:
        chunk = store.read_batch(writer.url, 0) + np.float16(1)
        store.write_batch(writer.url, 0, chunk, token=writer.token)
    damaged = run_here("verify", *shards, "--json")
    assert damaged.status == 1
    assert {Path(line["store"]).name for line in damaged.json["damaged"]} == {"2-of-3.zarr"}
    repaired = run_here("verify", *shards, "--repair", "--json")
    assert (repaired.status, repaired.json["repaired"]) == (0, len(damaged.json["damaged"]))
    refused = run_here("verify", *shards, "--sample", "2")
    assert (refused.status, "name it" in refused.err) == (1, True)
    page = run_here("report", *shards, "--out", "report.html", "--json")
    assert page.status == 0, page.err
    assert page.json["rows"] == 48


@pytest.mark.parametrize(
    "words",
    [
        ("features", "--videos", ".", "--store", "shards/*.zarr"),
        ("refresh", "--videos", ".", "--store", "shards/*.zarr"),
        ("forget", "--store", "shards/*.zarr", "--clips", "*"),
        ("freeze", "--store", "shards/*.zarr"),
        ("pack", "--store", "shards/*.zarr"),
    ],
    ids=lambda words: words[0],
)
def test_what_needs_one_store_says_so_in_a_sentence(folder: Path, words: tuple[str, ...]) -> None:
    done = run_here(*words)
    assert done.status == 1, done.err
    assert "pattern for several" in done.err
    assert "Traceback" not in done.err
    assert len(list((folder / "shards").iterdir())) == 3


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "1/0", "a/b", "-1/3", "1/3/4"])
def test_a_share_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="write which one of how many"):
        Share.parse(text)


@pytest.mark.parametrize("of", [1, 2, 7, 16])
def test_every_clip_is_in_one_share_and_parts_of_a_file_are_together(of: int) -> None:
    names = [f"Class{n % 9}/clip{n}.mp4" for n in range(400)]
    parts = [(f"long.mp4#t={n},{n + 1}", "long.mp4") for n in range(9)]
    catalog = pd.DataFrame([(name, "") for name in names] + parts, columns=["video_id", "file"])
    each = np.array([Share(number, of).members(catalog) for number in range(1, of + 1)])
    assert (each.sum(axis=0) == 1).all()
    assert len(set(each[:, -9:].argmax(axis=0))) == 1
    assert each.sum(axis=1).min() > 400 / of / 2
    shuffled = catalog.sample(frac=0.5, random_state=0)
    again = Share(1, of).members(shuffled)
    assert (
        dict(zip(shuffled["video_id"], again, strict=True)).items()
        <= dict(zip(catalog["video_id"], each[0], strict=True)).items()
    )


def test_shares_are_for_ever() -> None:
    catalog = pd.DataFrame({"video_id": ["a.mp4", "b/c.avi", "ü 🎬.mp4"], "file": ""})
    shares = [Share(number, 16).members(catalog) for number in range(1, 17)]
    assert np.array(shares).argmax(axis=0).tolist() == [0, 13, 3]


def test_each_shard_takes_its_clips_and_no_other(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("features", "--videos", str(clips), *FRAMES, "--json")
    named = ("--store", "shards/{shard}.zarr")
    for number in (1, 2):
        done = run_here(*words, *named, "--shard", f"{number}/2")
        assert done.status == 0, done.err
    opened = store.open_all("shards/*.zarr")
    assert isinstance(opened, store.Shards)
    assert [Path(url).name for url in opened.urls] == ["1-of-2.zarr", "2-of-2.zarr"]
    assert opened.counts()["ready"] == 12
    assert min(map(len, opened.stores)) > 0
    first = ("--store", "shards/1-of-2.zarr")
    for more in ((), ("--shard", "1/2")):  # a store keeps its share; the others' clips are not gone
        again = run_here(*words, *first, *more)
        assert again.status == 0, again.err
        assert (again.json["outcome"], again.json["gone"]) == ("nothing to do", 0)
    other = run_here(*words, *first, "--shard", "2/2")
    assert other.status == 1
    assert "shard is 2/2" in other.err
    assert "holds the shard 1/2" in other.err
    nameless = run_here(*words, *named)
    assert (nameless.status, "no shard is given" in nameless.err) == (1, True)


@pytest.mark.long
def test_several_backbones_fill_stores_of_one_shard(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    named = ("--store", "{backbone}/{shard}.zarr", "--shard", "2/2")
    done = run_here(
        *("features", "--videos", str(clips), "--backbone", "frames,motion", *named),
        *("--frames", "4", "--batch", "2", "--json"),
    )
    assert done.status == 0, done.err
    assert [Path(each["store"]).parts for each in done.json["stores"].values()] == [
        ("frames", "2-of-2.zarr"),
        ("motion", "2-of-2.zarr"),
    ]
    stores = [store.open(f"{backbone}/2-of-2.zarr") for backbone in ("frames", "motion")]
    ids = [each.table()["video_id"].tolist() for each in stores]
    share = Share(2, 2).members(pd.DataFrame({"video_id": ids[0], "file": ""}))
    assert share.all()
    assert ids[0] == ids[1]
    assert 0 < len(ids[0]) < 12
    assert all(each.attributes["shard"] == "2/2" for each in stores)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """96 short clips in two classes and six groups; each of sixteen shares has some."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(96):
        label, within = ("Jump", "Walk")[number % 2], number // 2
        name = f"v_{label}_g{within // 8 + 1:02d}_c{within % 8 + 1:02d}.mp4"
        (folder / label).mkdir(exist_ok=True)
        write_numbered_clip(folder / label / name, frames=4 + number)
    return folder


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_sixteen_shards_by_sixteen_processes_are_to_the_bit_one_store(
    many: Path, tmp_path: Path
) -> None:
    words = ("features", "--videos", str(many), *FRAMES, "--json")
    one = run(*words, "--store", "one.zarr", cwd=tmp_path, timeout_s=600)
    assert (one.status, one.json["ready"]) == (0, 96), one.err
    refused = run(*words, "--store", "one.zarr", "--shard", "1/16", cwd=tmp_path)
    assert (refused.status, "holds clips of all shards" in refused.err) == (1, True)

    def make(number: int) -> Finished:
        shard = ("--store", "shards/{shard}.zarr", "--shard", f"{number}/16")
        return run(*words, *shard, cwd=tmp_path, timeout_s=600)

    with ThreadPoolExecutor(4) as four_at_once:
        made = list(four_at_once.map(make, range(1, 17)))
    assert [done.status for done in made] == [0] * 16, [done.err for done in made if done.status]
    assert min(done.json["ready"] for done in made) > 0
    assert sum(done.json["ready"] for done in made) == 96
    for name, stores in (("one", "one.zarr"), ("all", "shards/*.zarr")):
        head = ("--head", "early_fusion", "--epochs", "2", "--name", name)
        done = run("train", "--store", stores, *head, cwd=tmp_path, timeout_s=600)
        assert done.status == 0, done.err
    same_runs(tmp_path / "runs/one", tmp_path / "runs/all")
    asked = ("similar", "--video", "Jump/v_Jump_g03_c05.mp4", "--out", "", "--json")
    each = [
        run(*asked, "--store", stores, cwd=tmp_path) for stores in ("one.zarr", "shards/*.zarr")
    ]
    assert each[0].json["similar"] == each[1].json["similar"], each[1].err
    page = run("report", "--store", "shards/*.zarr", "--out", "report.html", "--json", cwd=tmp_path)
    assert page.status == 0, page.err
    assert page.json["rows"] == 96
