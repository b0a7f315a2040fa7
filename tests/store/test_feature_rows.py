"""Rows that are read straight from a file are those that Zarr decodes, in any order; damage shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import ZstdCodec
from zarr.core.buffer import NDBuffer

import store
from store import chunks, sequences
from store.arrays import open_arrays, open_group
from store.place import Place
from store.sequences import FeatureRows
from tests.store.stores import clips, create, features_of, filled

LARGE = store.Layout(
    steps=4, shape=(2050,), batch=8
)  # rows of 16.4 kB: scattered ones are read alone
SMALL = store.Layout(steps=4, shape=(3,), dtype="float32", batch=8)


def written(url: str, layout: store.Layout, rows: int = 29) -> np.ndarray:
    """Random features in every chunk but the second, which is never written; returns them."""
    import pandas as pd

    create(url, layout)
    random = np.random.default_rng(0)
    features = random.normal(size=(rows, *layout.row_shape)).astype(layout.dtype)
    features[8:16] = 0
    with store.Writer.acquire(url, owner="test") as writer:
        writer.append(pd.DataFrame({"video_id": [f"{n}.mp4" for n in range(rows)]}))
        for batch in range(-(-rows // 8)):
            part = np.array(writer.rows_of(batch))
            digests = store.write_batch(url, batch, features[part], token=writer.token)
            writer.set(part, digest=digests)
        writer.put_steps(np.arange(rows), np.ones(4, bool), np.arange(4), np.arange(4) / 25)
        writer.mark(np.arange(rows), store.READY)
        writer.flush()
    return features


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> list[tuple[store.Store, np.ndarray]]:
    folder = tmp_path_factory.mktemp("rows")
    made = []
    for name, layout in {"large": LARGE, "small": SMALL}.items():
        url = str(folder / f"{name}.zarr")
        features = written(url, layout)
        made.append((store.open(url), features))
    return made


@settings(deadline=None)
@given(st.lists(st.integers(0, 28), max_size=40), st.integers(0, 1), st.booleans())
def test_any_rows_in_any_order_are_those_that_were_written(both, rows, which, ascending):
    opened, features = both[which]
    rows = sorted(rows) if ascending else rows
    loaded = opened.load(np.array(rows, dtype=np.int64))
    assert loaded.rows.tolist() == rows
    assert loaded.features.tobytes() == features[rows].tobytes()


def test_a_chunk_of_our_own_is_read_without_zarr(both, monkeypatch):
    monkeypatch.setattr(sequences, "decode_into", None)  # Zarr would be called by it
    for opened, features in both:
        rows = np.setdiff1d(np.arange(29), np.arange(8, 16))
        assert opened.load(rows).features.tobytes() == features[rows].tobytes()


def test_a_store_that_others_have_compressed_is_read_through_zarr(tmp_path: Path):
    url = str(tmp_path / "clips.zarr")
    features = written(url, SMALL)
    group = zarr.open_group(url, mode="r+")
    old = group["features"]
    zarr.create_array(
        group.store, name="features", data=np.asarray(old[:]), chunks=old.chunks,
        compressors=(ZstdCodec(level=1),), overwrite=True,
        chunk_key_encoding={"name": "default", "separator": "."},
        dimension_names=LARGE.dimensions,
    )  # fmt: skip
    opened = store.open(url)
    assert opened.load().features.tobytes() == features.tobytes()
    assert opened.load([20, 3, 3]).features.tobytes() == features[[20, 3, 3]].tobytes()


@pytest.mark.parametrize("layout", [LARGE, SMALL])
def test_a_flipped_bit_costs_its_row_and_a_cut_file_its_chunk(tmp_path: Path, layout):
    url = str(tmp_path / "clips.zarr")
    written(url, layout)
    opened = store.open(url)
    row = int(np.prod(layout.row_shape)) * np.dtype(layout.dtype).itemsize
    path = Path(url) / "features" / "c.2.0.0"
    data = bytearray(path.read_bytes())
    data[row * 3 + 5] ^= 1  # row 16 + 3
    path.write_bytes(bytes(data))
    with pytest.warns(store.StoreWarning, match=r"1 rows .*\(rows 19\)"):
        assert len(opened.load()) == 28
    path.write_bytes(bytes(data[:-1]))
    with pytest.warns(store.StoreWarning, match=r"8 rows .*rows 16, 17"):
        assert len(opened.load([*range(29)])) == 21
    with pytest.warns(store.StoreWarning, match=r"2 rows .*rows 23, 17"):
        assert len(opened.load([23, 2, 17])) == 1


def test_digests_are_those_of_the_rows_bytes(tmp_path: Path):
    url = filled(str(tmp_path / "clips.zarr"), rows=9)
    place = Place(url)
    array = open_arrays(open_group(place), ("features",))["features"]
    out = np.empty((9, *array.shape[1:]), array.dtype)
    rows = np.arange(4, 8)
    digests = FeatureRows(place, array).read(rows, out, np.array([8, 1, 3, 4]))
    assert digests.tolist() == chunks.row_digests(np.asarray(array[4:8])).tolist()


def test_zarr_does_not_look_for_zeros_in_a_chunk_that_has_none(tmp_path, monkeypatch):
    url = create(str(tmp_path / "clips.zarr"))
    with store.Writer.acquire(url, owner="test") as writer:
        rows = np.array(writer.append(clips(8)))
    looked: list[tuple[int, ...]] = []
    real = NDBuffer.all_equal

    def watched(self: NDBuffer, *words: object, **more: object) -> bool:
        looked.append(self.shape)
        return real(self, *words, **more)

    monkeypatch.setattr(NDBuffer, "all_equal", watched)
    store.write_batch(url, 0, features_of(rows[:4]), token=None)
    assert not looked
    store.write_batch(url, 1, np.zeros_like(features_of(rows[4:])), token=None)
    assert looked
    assert [path.name for path in (tmp_path / "clips.zarr" / "features").glob("c.*")] == ["c.0.0.0"]


def test_a_chunk_on_a_local_disk_is_written_whole_without_zarr(tmp_path: Path, monkeypatch):
    url = create(str(tmp_path / "clips.zarr"))
    with store.Writer.acquire(url, owner="test") as writer:
        writer.append(clips(6))
    folder = Path(url) / "features"
    with monkeypatch.context() as patched:
        patched.setattr(zarr.Array, "__setitem__", None)
        digests = store.write_batch(url, 1, features_of(np.arange(4, 6)), token=None)
    padded = np.concatenate(
        [features_of(np.arange(4, 6)), np.zeros_like(features_of(np.arange(2)))]
    )
    assert (folder / "c.1.0.0").read_bytes() == padded.tobytes()
    assert digests.tolist() == chunks.row_digests(padded[:2]).tolist()
    np.testing.assert_array_equal(zarr.open_group(url)["features"][4:6], padded[:2])


def test_a_chunk_that_cannot_be_synced_leaves_the_old_one_and_nothing_else(tmp_path, monkeypatch):
    url = filled(str(tmp_path / "clips.zarr"), rows=4)
    folder = Path(url) / "features"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(store.StoreUnwritable, match="full"):
            store.write_batch(url, 0, features_of(np.arange(4)) + 1, token=None)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
