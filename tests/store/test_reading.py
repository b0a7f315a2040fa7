"""What a reader gets: every row once, in a known order, whole, even while a run writes."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import store
from store import columns
from store.sequences import CHUNKS_IN_WINDOW, windows
from tests.store.stores import child, features_of, filled, put_batch

rows_of_a_store = st.lists(st.integers(0, 400), unique=True).map(lambda rows: np.array(rows, int))


@given(rows_of_a_store, st.integers(1, 9), st.booleans(), st.integers(0, 9), st.integers(0, 3))
def test_a_stream_has_every_row_once_in_windows_of_few_chunks(rows, batch, shuffle, seed, epoch):
    def order() -> list[np.ndarray]:
        return list(windows(rows, batch, shuffle=shuffle, seed=seed, epoch=epoch))

    parts = order()
    assert sorted(np.concatenate([*parts, []]).tolist()) == sorted(rows.tolist())
    assert all(len(np.unique(part // batch)) <= CHUNKS_IN_WINDOW for part in parts)
    assert all(len(part) for part in parts)
    assert [part.tolist() for part in parts] == [part.tolist() for part in order()]
    if shuffle:  # every chunk is read once
        chunks = [chunk for part in parts for chunk in np.unique(part // batch).tolist()]
        assert len(chunks) == len(set(chunks))
    else:
        assert np.concatenate([*parts, []]).tolist() == rows.tolist()


def test_epochs_and_seeds_differ_and_repeat():
    rows = np.arange(200)

    def order(seed: int, epoch: int) -> list[int]:
        return np.concatenate(list(windows(rows, 4, shuffle=True, seed=seed, epoch=epoch))).tolist()

    assert order(1, 0) == order(1, 0)
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


@pytest.fixture(scope="module")
def sixty(tmp_path_factory) -> str:
    return filled(str(tmp_path_factory.mktemp("sixty") / "clips.zarr"), rows=61)


@given(st.integers(1, 70), st.booleans(), rows_of_a_store)
def test_batches_carry_the_rows_they_name(sixty, size, shuffle, rows):
    rows = rows[rows < 61]
    got = list(store.open(sixty).batches(rows, size, shuffle=shuffle, seed=3))
    assert [len(part) for part in got[:-1]] == [size] * (len(got) - 1)
    assert all(1 <= len(part) <= size for part in got)
    assert sorted(row for part in got for row in part.rows.tolist()) == sorted(rows.tolist())
    for part in got:
        np.testing.assert_array_equal(part.features, features_of(part.rows))
        assert part.mask.tolist() == [[True, True, False]] * len(part)


def test_a_table_of_some_columns_has_those_of_the_whole(sixty):
    whole = store.open(sixty).table()
    for names in (["label"], ["state", "video_id"], ["digest", "fps", "status"]):
        pd.testing.assert_frame_equal(store.open(sixty).table(names), whole[names])
    assert store.open(sixty).table([]).index.equals(whole.index)
    for unknown in (["label", "colour"], ["features"], "label"):
        with pytest.raises(ValueError, match="is no column of the store: it has video_id"):
            store.open(sixty).table(unknown)


def test_load_keeps_the_order_asked_for_and_repeats(sixty):
    rows = [60, 3, 3, 17, 0]
    loaded = store.open(sixty).load(rows)
    assert loaded.rows.tolist() == rows
    np.testing.assert_array_equal(loaded.features, features_of(rows))
    assert "features (5, 3, 5) float16" in repr(loaded)


def test_rows_that_are_not_there_or_not_ready_are_named(local):
    filled(local)
    with store.Writer.acquire(local, owner="me") as writer:
        writer.mark([2], store.FAILED, "no_frames")
        writer.mark([4], store.GONE)
        writer.flush()
    snapshot = store.open(local)
    assert snapshot.counts() == {"pending": 0, "ready": 8, "failed": 1, "gone": 1}
    with pytest.raises(ValueError, match=r"2 of 3 rows are not ready: 2 \(failed\), 4 \(gone\)"):
        snapshot.load([1, 2, 4])
    with pytest.raises(ValueError, match=r"2 \(failed\)"):  # at the call, not at the first batch
        snapshot.batches([2])
    with pytest.raises(ValueError, match="has 10"):
        snapshot.load([10])
    with pytest.raises(ValueError, match="has 10"):
        snapshot.digests([-1])
    assert snapshot.load().rows.tolist() == [0, 1, 3, 5, 6, 7, 8, 9]


def test_a_snapshot_takes_rows_made_anew_and_leaves_out_rows_being_made(url):
    filled(url)
    snapshot = store.open(url)
    with store.Writer.acquire(url, owner="me") as writer:
        put_batch(writer, 0, version=1)  # ready again, with other features
        writer.mark(list(writer.rows_of(1)), store.PENDING)
        writer.flush()
        store.write_batch(url, 1, features_of([4, 5, 6, 7], 1), token=writer.token)
        with pytest.warns(store.StoreWarning, match=r"4 rows .*rows 4, 5, 6, 7"):
            loaded = snapshot.load()
    assert loaded.rows.tolist() == [0, 1, 2, 3, 8, 9]
    np.testing.assert_array_equal(loaded.features[:4], features_of(range(4), 1))
    np.testing.assert_array_equal(loaded.features[4:], features_of([8, 9]))
    assert snapshot.counts()["ready"] == 10
    assert snapshot.refresh().counts()["ready"] == 6


WRITE = """
import sys, numpy as np, store
from tests.store.stores import put_batch
with store.Writer.acquire(sys.argv[1], owner="child") as writer:
    print("go", flush=True)
    for version in range(1, 31):
        for batch in range(3):
            rows = list(writer.rows_of(batch))
            put_batch(writer, batch, version)
"""


def test_a_reader_during_a_run_sees_only_whole_ready_rows(local):
    filled(local)
    process = child(WRITE, local)
    assert process.stdout.readline() == "go\n"
    seen = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", store.StoreWarning)
        while process.poll() is None:
            loaded = store.open(local).load()
            versions = (loaded.features[:, 0, 0].astype(int) - loaded.rows - 1) // 64
            seen.update(versions.tolist())
            for row, version, features in zip(loaded.rows, versions, loaded.features, strict=True):
                np.testing.assert_array_equal(features, features_of([row], version)[0])
            assert loaded.mask.tolist() == [[True, True, False]] * len(loaded)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert len(seen) > 1
    assert len(store.open(local).load()) == 10


def test_every_status_has_its_word_and_one_that_no_store_writes_has_none():
    status = np.array([0, 1, 2, 3, 4, 127, 128, 255], np.uint8)
    table = columns.frame({"status": status}, np.arange(8))
    assert table["state"].astype(object).tolist()[:4] == ["pending", "ready", "failed", "gone"]
    assert table["state"][4:].isna().all()
