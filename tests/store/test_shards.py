"""Several stores of different clips as one: what is read, in which order, and what is refused."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import store
from tests.store.stores import (
    FINGERPRINT,
    LAYOUT,
    clips,
    create,
    features_of,
    filled,
    put_batch,
)

ROWS = 23


def shard(url: str, numbers: list[int], **options: object) -> str:
    """A store of these of the clips, ready, each with the features of its number."""
    create(url, **options)  # type: ignore[arg-type]
    with store.Writer.acquire(url, owner="test") as writer:
        writer.append(clips(ROWS).iloc[numbers])
        for batch in range(-(-len(numbers) // LAYOUT.batch)):
            put_batch(writer, batch)
            rows = np.array(writer.rows_of(batch))
            values = features_of(np.array(numbers)[rows])
            digests = store.write_batch(url, batch, values, token=writer.token)
            writer.set(rows, digest=digests)
        writer.set_attributes(classes=["run", "walk"])
        writer.flush()
    return url


@pytest.fixture
def folder(url: str) -> str:
    """Three shards of 23 clips; the last of them has a row that failed."""
    folder = url.removesuffix("/clips.zarr") + "/shards"
    if "://" not in folder:
        Path(folder).mkdir()
    for number in range(3):
        shard(f"{folder}/{number}.zarr", list(range(number, ROWS, 3)))
    with store.Writer.acquire(f"{folder}/2.zarr", owner="test") as writer:
        writer.mark([1], store.FAILED, "unreadable")
        writer.flush()
    return folder


def number_of(ids: pd.Series) -> np.ndarray:
    return ids.str.extract(r"clip-(\d+) ", expand=False).to_numpy(dtype=int)


def test_shards_read_as_one_store_in_order_of_id(folder: str) -> None:
    opened = store.open_all(f"{folder}/*.zarr")
    assert isinstance(opened, store.Shards)
    table = opened.table()
    assert table["video_id"].tolist() == sorted(clips(ROWS)["video_id"])
    assert table.index.tolist() == list(range(ROWS))
    assert table.index.name == "row"
    assert set(table.columns) == {*store.COLUMNS, "state"}
    assert opened.counts() == {"pending": 0, "ready": ROWS - 1, "failed": 1, "gone": 0}
    assert opened.fingerprint == FINGERPRINT
    assert opened.classes == ["run", "walk"]
    loaded = opened.load()
    assert loaded.rows.tolist() == table.index[table["state"] == "ready"].tolist()
    numbers = number_of(table["video_id"])
    np.testing.assert_array_equal(loaded.features, features_of(numbers[loaded.rows]))
    some = [20, 3, 3, 11]
    np.testing.assert_array_equal(opened.load(some).features, features_of(numbers[some]))
    assert opened.load(some).rows.tolist() == some
    np.testing.assert_array_equal(
        opened.digests(some), store.row_digests(features_of(numbers[some]))
    )
    frames, times = opened.steps_of(some)
    np.testing.assert_array_equal(frames, [[0, 7, -1]] * 4)
    np.testing.assert_array_equal(times, np.array([[0, 0.5, np.nan]] * 4, np.float32))
    assert opened.previews(some) == [[], [], [], []]


def test_a_stream_over_shards_has_every_row_once(tmp_path: Path) -> None:
    for number in range(3):
        shard(str(tmp_path / f"{number}.zarr"), list(range(number, ROWS, 3)))
    opened = store.open_all(tmp_path / "*.zarr")
    numbers = number_of(opened.table()["video_id"])
    for order in ({}, {"shuffle": True, "seed": 1}):
        parts = list(opened.batches(None, 5, **order))  # type: ignore[arg-type]
        rows = np.concatenate([part.rows for part in parts])
        assert sorted(rows.tolist()) == list(range(ROWS))
        for part in parts:
            np.testing.assert_array_equal(part.features, features_of(numbers[part.rows]))
    with pytest.raises(ValueError, match="give 1 or more"):
        next(opened.batches(None, 0))


def test_a_damaged_row_is_left_out_and_no_other_takes_its_place(tmp_path: Path) -> None:
    for number in range(3):
        shard(str(tmp_path / f"{number}.zarr"), list(range(number, ROWS, 3)))
    opened = store.open_all(tmp_path / "*.zarr", frozen=True)
    with store.Writer.acquire(str(tmp_path / "1.zarr"), owner="test") as writer:
        store.write_batch(writer.url, 0, features_of([60] * 4), token=writer.token)
    numbers = number_of(opened.table()["video_id"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded = opened.load()
    assert any("4 rows of" in str(w.message) and "1.zarr" in str(w.message) for w in caught)
    assert sorted(numbers[loaded.rows]) == sorted(set(range(ROWS)) - {1, 4, 7, 10})
    np.testing.assert_array_equal(loaded.features, features_of(numbers[loaded.rows]))


def test_a_store_of_another_spec_is_named(tmp_path: Path) -> None:
    for number in range(3):
        shard(str(tmp_path / f"{number}.zarr"), [number])
    spec = {"sampling": {"rule": "uniform", "steps": 3}, "weights": "random:1"}
    odd = str(tmp_path / "1b.zarr")
    store.create(odd, layout=LAYOUT, spec=spec, fingerprint="ab" * 32, software={})
    with pytest.raises(store.StoreMismatch, match=r"1b\.zarr holds .* another spec .* in weights"):
        store.open_all(tmp_path / "*.zarr")


def test_a_clip_in_two_shards_is_refused(tmp_path: Path) -> None:
    shard(str(tmp_path / "0.zarr"), [0, 1, 2])
    shard(str(tmp_path / "1.zarr"), [2, 3])
    with pytest.raises(store.StoreMismatch, match=r"clip-2 .*0\.zarr and .*1\.zarr"):
        store.open_all(tmp_path / "*.zarr")


def test_what_is_no_pattern_and_what_matches_nothing(tmp_path: Path) -> None:
    plain = filled(str(tmp_path / "clips.zarr"))
    assert isinstance(store.open_all(plain), store.Store)
    assert store.stores_of(plain) == [plain]
    odd = filled(str(tmp_path / "take[1].zarr"))
    assert store.stores_of(odd) == [odd]
    with pytest.raises(store.StoreNotFound, match="no feature store matches"):
        store.open_all(tmp_path / "none-*.zarr")
    with pytest.raises(store.StoreNotFound, match="a pattern for several, and one is needed"):
        store.open(tmp_path / "*.zarr")
    with pytest.raises(store.StoreMismatch, match="a new store has one name"):
        create(str(tmp_path / "new-*.zarr"))
    one = store.open_all(tmp_path / "clip*.zarr")
    assert isinstance(one, store.Shards)
    assert one.table()["video_id"].tolist() == sorted(clips(10)["video_id"])
    assert one.table(["label", "state"]).equals(one.table()[["label", "state"]])


def test_test_sets_of_all_shards_stay_apart(tmp_path: Path) -> None:
    for number in range(2):
        url = shard(str(tmp_path / f"{number}.zarr"), [number, number + 2])
        values = {"video_ids": [f"v{number}"], "groups": [], "whole_groups": bool(number)}
        with store.Writer.acquire(url, owner="test") as writer:
            store.add_test_set(writer, "2026", values)
    assert store.open_all(tmp_path / "*.zarr").test_sets == {
        "2026": {"video_ids": ["v0", "v1"], "groups": [], "whole_groups": True}
    }


def test_a_refreshed_snapshot_has_the_shards_that_came_since(tmp_path: Path) -> None:
    shard(str(tmp_path / "0.zarr"), [0, 2])
    opened = store.open_all(tmp_path / "*.zarr")
    shard(str(tmp_path / "1.zarr"), [1])
    now = opened.refresh()
    assert (len(opened), len(now)) == (2, 3)
