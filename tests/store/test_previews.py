"""Small pictures beside the features: kept per row, grown with the store, removed with `forget`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray

import store
from tests.store.stores import clips, create, filled, put_batch


def with_previews(url: str, rows: int = 10) -> str:
    create(url)
    with store.Writer.acquire(url, owner="test") as writer:
        writer.keep_previews()
        writer.append(clips(rows))
        for batch in range(-(-rows // 4)):
            pictures = {row: pictures_of(row) for row in writer.rows_of(batch)}
            store.write_previews(url, pictures, token=writer.token)
            put_batch(writer, batch)
    return url


def pictures_of(row: int) -> list[bytes]:
    return [b"\xff\xd8" + bytes([row + 1, place]) * (row + 5) + b"\xff\xd9" for place in range(3)]


def test_every_row_gives_its_own_pictures_back_in_any_order(tmp_path: Path) -> None:
    url = with_previews(str(tmp_path / "s"))
    assert store.read_previews(url, [7, 0, 7]) == [pictures_of(7), pictures_of(0), pictures_of(7)]


def test_other_rows_of_the_chunk_keep_their_pictures(tmp_path: Path) -> None:
    url = with_previews(str(tmp_path / "s"))
    store.write_previews(url, {5: [b"\xff\xd8new\xff\xd9"], 6: []}, token=None)
    assert store.read_previews(url, range(4, 8)) == [
        pictures_of(4), [b"\xff\xd8new\xff\xd9"], [], pictures_of(7),
    ]  # fmt: skip


def test_a_store_made_without_previews_has_none_and_can_be_given_them(tmp_path: Path) -> None:
    url = filled(str(tmp_path / "s"))
    before = store.open(url).load().features
    store.write_previews(url, {0: pictures_of(0)}, token=None)  # no array: nothing happens
    assert store.read_previews(url, [0, 1]) == [[], []]
    with store.Writer.acquire(url, owner="test") as writer:
        writer.keep_previews()
        writer.keep_previews()
        store.write_previews(url, {1: pictures_of(1)}, token=writer.token)
    assert store.read_previews(url, [0, 1]) == [[], pictures_of(1)]
    assert np.array_equal(store.open(url).load().features, before)


def test_the_array_grows_and_shrinks_with_the_store_so_xarray_opens_it(tmp_path: Path) -> None:
    url = with_previews(str(tmp_path / "s"), rows=6)
    with store.Writer.acquire(url, owner="test") as writer:
        writer.append(clips(3, start=6))
    opened = xarray.open_zarr(url, consolidated=False)
    assert opened["preview"].sizes == {"video": 9, "picture": 3, "byte": store.layout.PREVIEW_BYTES}
    assert store.read_previews(url, [5, 8]) == [pictures_of(5), []]


def test_a_run_that_lost_its_lease_writes_no_pictures(tmp_path: Path) -> None:
    url = with_previews(str(tmp_path / "s"))
    with pytest.raises(store.LeaseLost):
        store.write_previews(url, {0: []}, token="another's")
    assert store.read_previews(url, [0]) == [pictures_of(0)]


def test_damaged_pictures_are_no_pictures_and_no_damage(tmp_path: Path) -> None:
    url = with_previews(str(tmp_path / "s"))
    chunk = tmp_path / "s" / "preview" / "c.1.0.0"
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 255
    chunk.write_bytes(bytes(data))
    assert store.read_previews(url, [0, 5]) == [pictures_of(0), []]
    assert store.verify(url).ok
    store.write_previews(url, {5: pictures_of(5)}, token=None)
    assert store.read_previews(url, [5]) == [pictures_of(5)]


def test_forgetting_a_clip_removes_its_pictures_too(tmp_path: Path) -> None:
    url = with_previews(str(tmp_path / "s"))
    with store.Writer.acquire(url, owner="test") as writer:
        writer.forget([2])
    assert store.read_previews(url, [1, 2, 3]) == [pictures_of(1), [], pictures_of(3)]


def test_a_picture_that_is_too_large_is_refused_by_name(tmp_path: Path) -> None:
    url = with_previews(str(tmp_path / "s"))
    with pytest.raises(ValueError, match="a preview of 7000 bytes does not fit"):
        store.write_previews(url, {0: [b"x" * 7000]}, token=None)


def test_the_fingerprint_knows_nothing_of_previews(tmp_path: Path) -> None:
    plain = json.loads((Path(filled(str(tmp_path / "a"))) / "zarr.json").read_text())
    other = json.loads((Path(with_previews(str(tmp_path / "b"))) / "zarr.json").read_text())
    assert plain["attributes"]["fingerprint"] == other["attributes"]["fingerprint"]
