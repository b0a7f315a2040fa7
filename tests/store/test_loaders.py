"""Batches for PyTorch and TensorFlow: every row once an epoch, whatever starts the workers."""

from __future__ import annotations

import multiprocessing
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import zarr

import store
from store import labelled
from tests.store.stores import features_of, filled

ROWS = 100


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> str:
    return filled(str(tmp_path_factory.mktemp("loaders") / "clips.zarr"), rows=ROWS)


def check(batches: list[dict]) -> list[int]:
    for batch in batches:
        rows = np.asarray(batch["rows"])
        np.testing.assert_array_equal(np.asarray(batch["features"]), features_of(rows))
        assert np.asarray(batch["mask"]).tolist() == [[True, True, False]] * len(rows)
        assert np.asarray(batch["label"]).tolist() == (rows % 2).tolist()  # run, walk
    return [row for batch in batches for row in np.asarray(batch["rows"]).tolist()]


def test_neither_framework_is_imported_unless_asked(url: str):
    code = (
        f"import sys, store; next(iter(store.open({url!r}).batches()));"
        "assert not {'torch', 'tensorflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_a_snapshot_travels_as_it_was(url: str):
    opened = store.open(url)
    again = pickle.loads(pickle.dumps(opened))
    assert again.table().equals(opened.table())
    assert again.load([3, 1]).features.tobytes() == opened.load([3, 1]).features.tobytes()


def test_tensorflow_has_every_row_once_an_epoch(url: str):
    dataset = store.open(url).tf_dataset(size=7, seed=1)
    first, second = (check(list(dataset.as_numpy_iterator())) for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(ROWS))
    assert first != second


@pytest.mark.parametrize("shuffle", [False, True])
def test_readers_share_the_rows_by_chunks(url: str, shuffle: bool):
    opened = store.open(url)
    rows = np.random.default_rng(0).permutation(ROWS)[:70]
    batches = labelled.LabelledBatches(opened, rows, 7, shuffle=shuffle, seed=3)
    shares = [check(list(batches.epoch(0, share=(r, 3)))) for r in range(3)]
    assert sorted(row for share in shares for row in share) == sorted(rows.tolist())
    chunks = [{row // opened.batch for row in share} for share in shares]
    assert len(set().union(*chunks)) == sum(map(len, chunks))
    assert max(map(len, chunks)) - min(map(len, chunks)) <= 1
    if not shuffle:
        assert check(list(batches.epoch(5))) == rows.tolist()


def test_a_damaged_row_is_left_out_and_the_others_keep_their_labels(tmp_path: Path):
    damaged = filled(str(tmp_path / "clips.zarr"), rows=20)
    features = zarr.open_array(damaged, path="features", mode="r+")
    features[5] = 1
    with pytest.warns(store.StoreWarning, match="rows 5"):
        rows = check(list(store.open(damaged).tf_dataset(size=7).as_numpy_iterator()))
    assert sorted(rows) == [row for row in range(20) if row != 5]


METHODS = ("fork", "spawn", "forkserver")


def epochs(url: str, method: str, workers: int, count: int, **options: object) -> list[list[int]]:
    data = pytest.importorskip("torch.utils.data", reason="PyTorch is not installed")
    dataset = store.open(url).torch_dataset(size=7, seed=1)
    loader = data.DataLoader(
        dataset,
        batch_size=None,
        num_workers=workers,
        multiprocessing_context=method if workers else None,
        timeout=120 if workers else 0,
        **options,
    )
    orders = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of fewer cores than workers, and of fork beside threads
        for epoch in range(count):
            dataset.set_epoch(epoch)
            orders.append(check(list(loader)))
    return orders


def test_torch_has_every_row_once_an_epoch(url: str):
    first, second = epochs(url, "", 0, 2)
    assert sorted(first) == sorted(second) == list(range(ROWS))
    assert first != second
    assert epochs(url, "", 0, 1) == [first]


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("method", METHODS)
def test_torch_workers_start_a_hundred_times(url: str, method: str):
    if method == "forkserver":
        multiprocessing.set_forkserver_preload(["torch", "store"])
    for order in epochs(url, method, 8, 100):
        assert sorted(order) == list(range(ROWS))


@pytest.mark.long
@pytest.mark.parametrize("method", METHODS)
def test_torch_workers_that_live_on_see_the_next_epoch(url: str, method: str):
    first, second = epochs(url, method, 2, 2, persistent_workers=True)
    assert sorted(first) == sorted(second) == list(range(ROWS))
    assert first != second
