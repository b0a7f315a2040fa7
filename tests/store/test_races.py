"""What two runs do at the same moment, and what a run leaves that fails right after it took the lease."""

from __future__ import annotations

import sys
import uuid
from pathlib import Path

import numpy as np
import pytest

import store
from store import creation
from store.lease import FOLDER, Lease
from store.place import Place
from tests.store.stores import create, features_of, filled


def test_a_store_made_by_another_run_in_the_same_moment_is_taken(tmp_path, monkeypatch):
    url, real = str(tmp_path / "clips.zarr"), creation.sync_files

    def another_is_quicker(paths):
        monkeypatch.setattr(creation, "sync_files", real)
        create(url)
        real(paths)

    monkeypatch.setattr(creation, "sync_files", another_is_quicker)
    create(url)
    assert len(store.open(url).table()) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["clips.zarr"]


def test_a_store_of_other_settings_made_in_the_same_moment_is_refused(tmp_path, monkeypatch):
    url, real = str(tmp_path / "clips.zarr"), creation.sync_files

    def another_is_quicker(paths):
        monkeypatch.setattr(creation, "sync_files", real)
        create(url, store.Layout(steps=9, shape=(5,), batch=4))

    monkeypatch.setattr(creation, "sync_files", another_is_quicker)
    with pytest.raises(store.StoreMismatch, match="use what it was made with"):
        create(url)
    assert [path.name for path in tmp_path.iterdir()] == ["clips.zarr"]


@pytest.mark.parametrize("made", [True, False], ids=["it makes the store", "it makes none"])
def test_a_creation_waits_for_another_one_on_an_object_store(made, monkeypatch):
    url = f"memory://races-{uuid.uuid4().hex}/clips.zarr"
    held = Lease.acquire(Place(url), "create")
    monkeypatch.setattr(creation, "_OTHERS_S", 0.0)
    real = creation.Lease.acquire

    def meanwhile(place, owner):
        if made:
            create(url, lease=False)
        return real(place, owner)

    monkeypatch.setattr(creation.Lease, "acquire", meanwhile)
    if made:
        assert create(url) == url
    else:
        with pytest.raises(store.StoreBusy):
            create(url)
    held.release(())


def leases(url: str) -> list[Path]:
    return list((Path(url) / FOLDER).glob("*.json"))


def test_a_writer_that_cannot_read_the_store_lets_the_lease_go(tmp_path):
    url = filled(str(tmp_path / "clips.zarr"))
    (tmp_path / "clips.zarr" / "status" / "zarr.json").write_text("{", encoding="utf-8")
    with pytest.raises(store.StoreError):
        store.Writer.acquire(url, owner="test")
    assert leases(url) == []


def test_a_repair_that_fails_at_its_start_lets_the_lease_go(tmp_path, monkeypatch):
    url = filled(str(tmp_path / "clips.zarr"))

    def no_space(*_: object):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys.modules["store.verify"], "_reset_chunks", no_space)
    with pytest.raises(store.StoreUnwritable):
        store.repair(url, store.verify(url), owner="test")
    assert leases(url) == []


def test_forgetting_a_row_of_a_damaged_chunk_leaves_damage_and_no_features(tmp_path):
    url = filled(str(tmp_path / "clips.zarr"))
    chunk = Path(url) / "features" / "c" / "0" / "0" / "0"
    chunk = chunk if chunk.exists() else next(Path(url).glob("features/c*0*0*0"))
    chunk.write_bytes(b"\x00" * 7)
    with store.Writer.acquire(url, owner="test") as writer:
        writer.forget([0])
    assert not store.read_batch(url, 0).any()
    assert set(store.verify(url).damaged["row"]) == {1, 2, 3}


@pytest.mark.parametrize("size", [1, 5, 33, 64, 70])
def test_batches_go_on_across_windows_without_a_gap(tmp_path, size):
    """A window is eight chunks (32 rows here): batches that do not divide it are put together."""
    url = filled(str(tmp_path / "clips.zarr"), rows=70)
    rows = np.arange(70)
    batches = list(store.open(url).batches(rows, size))
    assert [len(batch) for batch in batches[:-1]] == [size] * (len(batches) - 1)
    features = np.concatenate([batch.features for batch in batches])
    np.testing.assert_array_equal(features, features_of(rows))
