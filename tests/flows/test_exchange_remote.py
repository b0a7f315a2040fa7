"""Import into a store in a bucket, and export from it, as on a disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import store
from flows.cli.main import main
from flows.exchange.exporting import export_store
from tests.buckets import bucket
from tests.flows.test_exchange import contents, folder_of, imported

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with bucket() as url:
        yield url


def test_an_import_into_a_bucket_is_that_on_a_disk(s3: str, tmp_path: Path, monkeypatch):
    folder = folder_of(tmp_path / "in")
    imported(folder, tmp_path / "here.zarr", steps=4, batch=4)
    url, real, count = f"{s3}/clips.zarr", store.write_batch, 0

    def stopping(*words: object, **more: object) -> object:
        nonlocal count
        count += 1
        if count > 3:
            raise KeyboardInterrupt
        return real(*words, **more)

    with monkeypatch.context() as patch:
        patch.setattr(store, "write_batch", stopping)
        with pytest.raises(KeyboardInterrupt):
            imported(folder, url, steps=4, batch=4)
    result = imported(folder, url, steps=4, batch=4)
    assert result.ready + result.kept == 24
    assert contents(url) == contents(str(tmp_path / "here.zarr"))
    assert store.verify(url).ok
    assert store.holder(url) is None
    assert imported(folder, url, steps=4, batch=4).kept == 24


@pytest.mark.parametrize("format", ["npz", "hdf5", "parquet"])
def test_a_store_in_a_bucket_is_exported_and_packed(s3: str, tmp_path: Path, format: str):
    url = f"{s3}/{format}.zarr"
    imported(folder_of(tmp_path / "in"), url, steps=4, batch=4)
    export_store(url, str(tmp_path / "out"), format=format)
    imported(tmp_path / "out", tmp_path / "back.zarr", steps=4)
    assert contents(str(tmp_path / "back.zarr")) == contents(url)
    assert main(["pack", "--store", url, "--out", str(tmp_path / "x.zip")]) == 0
    assert contents(str(tmp_path / "x.zip")) == contents(url)
