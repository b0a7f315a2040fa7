"""What a store promises wherever it is: on a disk, in memory, on S3."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import xarray
import zarr

import store
from tests.store.conftest import EVERYWHERE
from tests.store.stores import (
    FINGERPRINT,
    LAYOUT,
    SPEC,
    arrays,
    clips,
    create,
    features_of,
    filled,
    put_batch,
    same,
)


@pytest.mark.parametrize("url", EVERYWHERE, indirect=True)
def test_what_is_committed_is_what_is_loaded(url):
    filled(url)
    snapshot = store.open(url)
    loaded = snapshot.load([7, 0, 9])
    assert loaded.rows.tolist() == [7, 0, 9]
    np.testing.assert_array_equal(loaded.features, features_of([7, 0, 9]))
    np.testing.assert_array_equal(loaded.mask, [[True, True, False]] * 3)
    np.testing.assert_array_equal(
        snapshot.digests([7, 0, 9]), store.row_digests(features_of([7, 0, 9]))
    )
    frames, times = snapshot.steps_of([3])
    assert frames.tolist() == [[0, 7, -1]]
    np.testing.assert_array_equal(times, np.array([[0, 0.5, np.nan]], np.float32))


def test_table_has_every_column_with_one_line_per_row(url):
    table = store.open(filled(url)).table()
    assert table.index.name == "row"
    assert table.index.tolist() == list(range(10))
    assert set(store.COLUMNS) | {"state"} == set(table.columns)
    assert table["video_id"].tolist() == clips(10)["video_id"].tolist()
    assert table["state"].astype(str).unique().tolist() == ["ready"]
    assert table["status"].dtype == np.int8
    assert table["size_bytes"].tolist() == list(range(1000, 1010))
    assert table["mtime_ns"].eq(-1).all()
    assert table["reason"].eq("").all()


def test_a_new_store_is_empty_and_says_what_it_is(url):
    create(url)
    snapshot = store.open(url)
    assert len(snapshot) == 0
    assert len(snapshot.table()) == 0
    assert len(snapshot.load()) == 0
    assert list(snapshot.batches()) == []
    assert (snapshot.steps, snapshot.shape, snapshot.batch) == (3, (5,), 4)
    assert snapshot.dtype == np.float16
    assert snapshot.spec == SPEC
    assert snapshot.fingerprint == FINGERPRINT
    assert snapshot.software == {"zarr": "3"}
    assert FINGERPRINT[:12] in repr(snapshot)


def test_creating_again_keeps_the_store_and_another_one_is_refused(url):
    filled(url)
    create(url)
    assert len(store.open(url)) == 10
    with pytest.raises(store.StoreMismatch, match="batch=8"):
        create(url, store.Layout(steps=3, shape=(5,), batch=8))
    with pytest.raises(store.StoreMismatch, match="abcabcabc"):
        store.create(url, layout=LAYOUT, spec={}, fingerprint="abc" * 21, software={})


def test_xarray_opens_it_with_named_dimensions_and_no_warning(url):
    filled(url)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with store.Writer.acquire(url, owner="test"):  # even while a run holds the lease
            data = xarray.open_zarr(url, consolidated=False)
    assert dict(data.sizes) == {"video": 10, "step": 3, "channel": 5}
    assert data["features"].dims == ("video", "step", "channel")
    assert data["mask"].dims == ("video", "step")
    assert data["video_id"].values[1] == "a b/clip-1 🎬.avi"
    assert data.attrs["format"] == "pixels-once/features"
    assert data.attrs["format_version"] == 1
    assert data.attrs["classes"] == ["run", "walk"]


def test_appending_in_two_runs_gives_what_one_gives(url):
    create(url)
    with store.Writer.acquire(url, owner="test") as writer:
        assert writer.append(clips(6)).tolist() == [0, 1, 2, 3, 4, 5]
        put_batch(writer, 0)
    with store.Writer.acquire(url, owner="test") as writer:
        assert writer.append(clips(4, start=6)).tolist() == [6, 7, 8, 9]
        assert writer.column("status").tolist() == [1] * 4 + [0] * 6
        put_batch(writer, 1)
        put_batch(writer, 2)
        writer.set_attributes(classes={"walk", "run"})
    other = url + ".other"
    assert same(arrays(url), arrays(filled(other)))


def test_two_writers_cannot_be(url):
    create(url)
    with store.Writer.acquire(url, owner="nightly") as writer:
        with pytest.raises(store.StoreBusy, match="nightly") as refused:
            store.Writer.acquire(url, owner="other")
        assert refused.value.holder.owner == "nightly"
        assert store.holder(url).token == writer.token
    assert store.holder(url) is None
    with store.Writer.acquire(url, owner="other") as writer:
        assert not writer.took_over


def test_a_late_worker_is_fenced_off(url):
    filled(url)
    with store.Writer.acquire(url, owner="first") as writer:
        late = writer.token
    with (
        store.Writer.acquire(url, owner="second"),
        pytest.raises(store.LeaseLost, match="second"),
    ):
        store.write_batch(url, 0, features_of(range(4), 9), token=late)
    with pytest.raises(store.LeaseLost):
        store.write_batch(url, 0, features_of(range(4), 9), token=late)
    np.testing.assert_array_equal(store.read_batch(url, 0), features_of(range(4)))


def test_a_batch_is_written_whole_or_not_at_all(url):
    filled(url)
    with pytest.raises(ValueError, match="whole chunk"):
        store.write_batch(url, 0, features_of(range(3)), token=None)
    with pytest.raises(ValueError, match="float32"):
        store.write_batch(url, 0, features_of(range(4)).astype("float32"), token=None)
    assert len(store.read_batch(url, 2)) == 2  # the last batch is short
    store.write_batch(url, 2, features_of([8, 9], 3), token=None)
    np.testing.assert_array_equal(store.read_batch(url, 2), features_of([8, 9], 3))


def test_zeros_and_missing_read_alike_and_the_status_decides(url):
    create(url)
    with store.Writer.acquire(url, owner="test") as writer:
        writer.append(clips(4))
        zeros = np.zeros((4, 3, 5), np.float16)
        digests = store.write_batch(url, 0, zeros, token=writer.token)
        writer.set([0, 1], digest=digests[:2])
        writer.mark([0, 1], store.READY)
        writer.flush()
    snapshot = store.open(url)
    assert snapshot.load().rows.tolist() == [0, 1]
    with pytest.raises(ValueError, match=r"2 \(pending\)"):
        snapshot.load([0, 2])


def test_negative_zeros_survive(url):
    create(url)
    with store.Writer.acquire(url, owner="test") as writer:
        writer.append(clips(4))
        digests = store.write_batch(url, 0, np.full((4, 3, 5), -0.0, np.float16), token=None)
    np.testing.assert_array_equal(store.row_digests(store.read_batch(url, 0)), digests)


def test_forgotten_rows_are_gone_for_good(url):
    filled(url)
    with store.Writer.acquire(url, owner="test") as writer:
        writer.mark([1], store.GONE)
        writer.forget([1, 9])
    snapshot = store.open(url)
    assert snapshot.table()["state"].astype(str)[[0, 1, 9]].tolist() == ["ready", "gone", "pending"]
    assert not store.read_batch(url, 0)[1].any()
    assert not store.read_batch(url, 2)[1].any()
    np.testing.assert_array_equal(snapshot.load([0]).features, features_of([0]))
    assert snapshot.table()["frames_decoded"][1] == -1
    assert snapshot.steps_of([1])[0].tolist() == [[-1, -1, -1]]


def test_unmade_rows_are_pending_before_they_lose_their_digest(url):
    """A kill between the two leaves rows to be made, not rows that look damaged."""
    filled(url)
    with store.Writer.acquire(url, owner="test") as writer:
        writer.mark([1, 2], store.GONE)
        assert writer.unmake([0, 1]).tolist() == [0]
        assert writer.unmake([2], present=True).tolist() == [2]
        between = store.open(url)
        states = between.table()["state"].astype(str)
        assert states[[0, 1, 2, 3]].tolist() == ["pending", "gone", "pending", "ready"]
        assert between.digests([2]).all()
        writer.flush()
    after = store.open(url)
    assert not after.digests([0, 1, 2]).any()
    assert after.table()["frames_decoded"][[0, 1, 2]].tolist() == [-1, -1, -1]
    assert store.verify(url).ok


@pytest.mark.parametrize("url", EVERYWHERE, indirect=True)
def test_nothing_there_and_something_else_there_are_told_apart(url):
    assert not store.exists(url)
    for call in (store.open, store.verify):
        with pytest.raises(store.StoreNotFound, match="no feature store"):
            call(url)
    with pytest.raises(FileNotFoundError):
        store.Writer.acquire(url, owner="test")
    zarr.open_group(url, mode="w", attributes={"mine": 1})
    assert not store.exists(url)
    with pytest.raises(store.StoreMismatch, match="no feature store"):
        store.open(url)
    with pytest.raises(store.StoreMismatch):
        create(url)


def test_a_newer_format_is_refused_in_one_sentence(url):
    filled(url)
    zarr.open_group(url, mode="r+").update_attributes({"format_version": 2})
    for call in (store.open, store.verify, lambda u: store.Writer.acquire(u, owner="test")):
        with pytest.raises(store.StoreTooNew, match="format version 2"):
            call(url)


def test_unknown_arrays_and_attributes_are_ignored(url):
    filled(url)
    group = zarr.open_group(url, mode="r+")
    group.create_array("novelty", shape=(3,), dtype="int8")
    group.update_attributes({"novelty": {"a": 1}})
    assert len(store.open(url).load()) == 10
    assert store.verify(url).ok
    with store.Writer.acquire(url, owner="test") as writer:
        writer.append(clips(1, start=10))
    assert store.open(url).attributes["novelty"] == {"a": 1}


def test_nothing_is_written_where_nothing_differs(url):
    filled(url)
    with store.Writer.acquire(url, owner="test") as writer:
        array = writer._arrays["label"]
        writer.set(np.arange(10), label=clips(10)["label"].to_numpy(), fps=25.0)
        assert not writer._dirty
        writer.set([3], fps=np.nan)
        writer.flush()
        writer.set([3], fps=np.nan)
        assert not writer._dirty
    assert array.shape == (10,)


def test_verify_finds_nothing_in_a_sound_store(url):
    filled(url)
    seen = []
    report = store.verify(url, on_progress=lambda done, total: seen.append((done, total)))
    assert report.ok, report
    assert (report.checked, report.sound) == (10, 10)
    assert seen[-1] == (10, 10)


def test_secrets_are_written_nowhere(s3, monkeypatch):
    import s3fs

    url = filled(f"{s3}/clips.zarr")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    with store.Writer.acquire(
        url, owner="test", storage_options={"key": "me", "secret": "hush-hush"}
    ):
        files = s3fs.S3FileSystem()
        files.invalidate_cache()
        everything = [files.cat_file(name) for name in files.find(url)]
        assert any(
            json.loads(data).get("owner") == "test" for data in everything if data[:1] == b"{"
        )
    assert not any(b"hush-hush" in data for data in everything)
