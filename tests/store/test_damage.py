"""Damage is found, named by row and kind, and sent back to be made anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

import store
from store.lease import FOLDER
from tests.store.stores import arrays, clips, features_of, filled, put_batch, same


def flip(url: str, key: str, byte: int = 20, bit: int = 3) -> None:
    """Flip one bit of one object of a store on disk."""
    path = Path(url) / key
    data = bytearray(path.read_bytes())
    data[byte % len(data)] ^= 1 << bit
    path.write_bytes(data)


def rebuild(url: str) -> None:
    """What the next run does: fill in the catalog's columns, make the pending rows."""
    with store.Writer.acquire(url, owner="next") as writer:
        known = clips(10).drop(columns="video_id")
        writer.set(np.arange(10), **{name: known[name].to_numpy() for name in known})
        for batch in range(3):
            if (writer.column("status")[list(writer.rows_of(batch))] == store.PENDING).any():
                put_batch(writer, batch)
        writer.flush()


def test_every_single_flipped_bit_of_features_is_found_and_mended(local):
    whole = arrays(filled(local))
    for byte in range(0, 120, 17):
        flip(local, "features/c.1.0.0", byte)
        report = store.verify(local)
        row = 4 + byte // 30
        assert report.damaged["row"].tolist() == [row]
        assert report.damaged["video_id"].tolist() == [f"a b/clip-{row} 🎬.avi"]
        assert report.damaged["what"].tolist() == ["features do not match their digest"]
        assert report.sound == 9
        assert not report.ok
        with pytest.warns(store.StoreWarning, match=f"rows {row}.: their features do not match"):
            left = store.open(local).load()
        assert row not in left.rows
        assert len(left) == 9
        assert store.repair(local, report, owner="me") == 1
        assert store.open(local).counts()["pending"] == 1
        rebuild(local)
        assert same(arrays(local), whole)
        assert store.verify(local).ok


@pytest.mark.parametrize("cut", [0, 1, 50])
def test_a_chunk_cut_short_costs_its_own_rows(local, cut):
    filled(local)
    path = Path(local) / "features" / "c.0.0.0"
    path.write_bytes(path.read_bytes()[:cut])
    report = store.verify(local)
    assert report.damaged["row"].tolist() == [0, 1, 2, 3]
    assert set(report.damaged["what"]) == {"features cannot be decoded"}
    with pytest.raises(store.StoreDamaged, match="rows 0 to 3"):
        store.read_batch(local, 0)
    with pytest.warns(store.StoreWarning, match="4 rows"):
        assert store.open(local).load().rows.tolist() == [4, 5, 6, 7, 8, 9]
    with store.Writer.acquire(local, owner="me") as writer:
        assert writer.check_batches([0, 1]).tolist() == [0, 1, 2, 3]


def test_a_lost_chunk_is_damage_not_zeros(local):
    filled(local)
    (Path(local) / "features" / "c.2.0.0").unlink()
    assert store.verify(local).damaged["row"].tolist() == [8, 9]


@pytest.mark.parametrize(
    ("column", "value", "what"),
    [
        ("status", 9, "status is 9"),
        ("status", 2, "failed without a reason"),
        ("digest", 5, "features do not match their digest"),
        ("mask", [False, False, False], "mask has no real frame"),
        ("mask", [True, False, True], "mask is not right-padded"),
        ("mask", [True, False, False], "frame_index does not fit the mask"),
        ("frame_index", [3, 3, -1], "frame_index does not increase"),
        ("frame_index", [-1, 3, -1], "frame_index does not fit the mask"),
        ("timestamp", [0, np.nan, np.nan], "timestamp does not fit the mask"),
        ("timestamp", [0, np.inf, np.nan], "timestamp does not fit the mask"),
        ("video_id", "", "video_id is lost"),
        ("video_id", "a b/clip-0 🎬.avi", "video_id is another row's too"),
    ],
)
def test_what_cannot_be_is_named(local, column, value, what):
    filled(local)
    zarr.open_group(local, mode="r+")[column][6] = (
        np.array(value) if column != "video_id" else value
    )
    report = store.verify(local)
    assert report.damaged[["row", "what"]].to_numpy().tolist() == [[6, what]]


@pytest.mark.parametrize(
    ("value", "step", "what"),
    [
        (np.nan, 0, "features are not finite"),
        (np.inf, 1, "features are not finite"),
        (3, 2, "features are not zero in the padding"),
    ],
)
def test_values_that_no_run_would_write_are_named(local, value, step, what):
    filled(local)
    features = features_of(range(4))
    features[1, step, 2] = value
    digests = store.write_batch(local, 0, features, token=None)
    zarr.open_group(local, mode="r+")["digest"][:4] = digests
    assert store.verify(local).damaged[["row", "what"]].to_numpy().tolist() == [[1, what]]


@pytest.mark.parametrize("column", [*store.COLUMNS, "mask", "frame_index", "timestamp"])
def test_a_damaged_small_column_is_named_and_rebuilt(local, column):
    whole = arrays(filled(local))
    key = f"{column}/c.0" + ".0" * (column in ("mask", "frame_index", "timestamp"))
    if not (Path(local) / key).exists():
        pytest.skip("the column is all unknown, so it has no bytes")
    flip(local, key)
    report = store.verify(local)
    assert report.columns == [column]
    if column == "video_id":
        with pytest.raises(store.StoreDamaged, match="restore the folder video_id"):
            store.repair(local, report, owner="me")
        with pytest.raises(store.StoreDamaged, match="video_id"):
            store.open(local).table()
        return
    if column not in ("mask", "frame_index", "timestamp"):
        with pytest.raises(store.StoreDamaged, match=f"column {column} .*verify"):
            store.open(local).table()
    redo = store.repair(local, report, owner="me")
    assert redo == (0 if column in ("label", "split", "group", "size_bytes") else 10)
    rebuild(local)
    assert store.verify(local).ok
    assert same(arrays(local), whole)


def test_an_edited_spec_is_noticed(local):
    filled(local)
    zarr.open_group(local, mode="r+").update_attributes({"spec": {"other": 1}})
    report = store.verify(local)
    assert "fingerprint" in report.problems[0]
    assert not report.ok


def test_gone_rows_are_checked_and_lose_what_would_bring_them_back(local):
    filled(local)
    with store.Writer.acquire(local, owner="me") as writer:
        writer.mark([5], store.GONE)
        writer.flush()
    flip(local, "features/c.1.0.0", byte=35)
    report = store.verify(local)
    assert report.damaged["row"].tolist() == [5]
    store.repair(local, report, owner="me")
    row = store.open(local).table().loc[5]
    assert (row["state"], row["digest"], row["frames_decoded"]) == ("gone", 0, -1)
    assert store.verify(local).ok


def test_repair_waits_for_no_run(local):
    filled(local)
    report = store.verify(local)
    with (
        store.Writer.acquire(local, owner="nightly"),
        pytest.raises(store.StoreBusy, match="nightly"),
    ):
        store.repair(local, report, owner="me")


def test_metadata_that_is_no_json_is_one_sentence(local):
    filled(local)
    (Path(local) / "zarr.json").write_text("{")
    with pytest.raises(store.StoreDamaged, match="not a group's metadata"):
        store.open(local)


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b"\xff"])
@pytest.mark.parametrize("array", ["", "status/", "fps/"])
def test_damaged_metadata_is_named_in_one_sentence_by_whoever_opens_the_store(local, array, text):
    filled(local)
    (Path(local) / f"{array}zarr.json").write_bytes(text)
    for call in (
        lambda: store.open(local).load(),
        lambda: store.verify(local),
        lambda: store.Writer.acquire(local, owner="test"),
    ):
        with pytest.raises(store.StoreError) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert list((Path(local) / FOLDER).glob("*.json")) == []


@pytest.mark.parametrize(
    "text",
    [
        *("", "null", "[]", "1", "{}", "[" * 100_000),
        '{"zarr_format": 3, "node_type": "group"}',
        '{"zarr_format": 3, "node_type": "array", "shape": "abc", "codecs": 3}',
    ],
    ids=range(8),
)
def test_damaged_metadata_of_features_are_named_by_whoever_reads_or_writes_a_chunk(local, text):
    filled(local)
    (Path(local) / "features" / "zarr.json").write_text(text)
    for call in (
        lambda: store.read_batch(local, 0),
        lambda: store.write_batch(local, 0, features_of(range(4)), token=None),
    ):
        with pytest.raises(store.StoreError, match="features"):
            call()


def test_a_chunk_is_written_whatever_the_order_of_its_values_in_memory(local):
    filled(local)
    right = features_of(range(4))
    for given in (
        np.asfortranarray(right),
        right[::-1].copy()[::-1],
        right[..., ::-1].copy()[..., ::-1],
    ):
        digests = store.write_batch(local, 0, given, token=None)
        assert np.array_equal(store.read_batch(local, 0), right)
        assert np.array_equal(digests, store.row_digests(right))
