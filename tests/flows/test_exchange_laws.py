"""Laws of import and export, for every format: what goes out comes back, what comes in goes out."""

from __future__ import annotations

import io
import itertools
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import store
from flows.cli.export import STORE_FORMATS
from flows.exchange import exporting, formats
from flows.exchange.exporting import export_store
from tests.flows.test_exchange import contents, imported
from tests.sharing import others_long
from tests.store.stores import FINGERPRINT, SPEC

TEXTS = st.one_of(
    st.sampled_from(["", "run", "a,b", "two\nlines", '"quoted"', "=1+1", "wálk 🏃", " spaced "]),
    st.text(st.characters(blacklist_categories=("Cs",)), max_size=8),
)
IDS = st.one_of(
    st.sampled_from(
        ["a", "A", ".a", "a.npy/b", "e\u0301.mp4", "\u00e9.mp4", "-x", "aux.mp4", "dir./x"]
    ),
    st.text(st.characters(blacklist_categories=("Cs",)), min_size=1, max_size=10),
)
KINDS = {
    "vectors": ("float16", (7,)),
    "one number": ("float32", (1,)),
    "pose": ("float16", (33, 4)),
    "motion": ("float32", (13,)),
    "frames": ("uint8", (3, 4, 3)),
}
STATES = st.sampled_from([store.READY, store.READY, store.READY, store.FAILED, store.GONE])
quick = settings(
    max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
numbers = itertools.count()


def drawn(path: Path, draw: Callable[..., Any]) -> str:
    """A store of any kind, shape, names, labels and states."""
    dtype, shape = KINDS[draw(st.sampled_from(sorted(KINDS)))]
    steps, batch = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    ids = draw(st.lists(IDS, unique=True, min_size=1, max_size=9))
    count = len(ids)
    states = np.array([store.READY, *(draw(STATES) for _ in ids[1:])])
    layout = store.Layout(steps=steps, shape=shape, dtype=dtype, batch=batch)
    store.create(str(path), layout=layout, spec=SPEC, fingerprint=FINGERPRINT, software={})
    random = np.random.default_rng(draw(st.integers(0, 99)))
    mask = np.arange(steps) < random.integers(1, steps + 1, count)[:, None]
    features = (random.normal(size=(count, steps, *shape)) * 50).astype(dtype)
    features[~mask] = 0
    frames = np.where(mask, np.cumsum(random.integers(1, 9, mask.shape), axis=1), -1)
    times = np.where(mask, frames / np.float32(29.97), np.nan).astype(np.float32)
    table = pd.DataFrame({"video_id": ids, "label": [draw(TEXTS) for _ in ids]})
    table["split"] = [["train", "test", "val", ""][i % 4] for i in range(count)]
    table["group"] = [draw(TEXTS) for _ in ids]
    with store.Writer.acquire(str(path), owner="test") as writer:
        rows = writer.append(table)
        for number in range(-(-count // batch)):
            part = np.array(writer.rows_of(number))
            digests = store.write_batch(str(path), number, features[part], token=writer.token)
            writer.set(part, digest=digests)
        writer.put_steps(rows, mask, frames, times)
        writer.mark(rows, states, np.where(states == store.FAILED, "no_frames", "").astype(object))
        writer.flush()
    return str(path)


def files_of(folder: Path) -> dict[str, bytes]:
    """The files of an export, but those that name the store that it is of."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in found
        if path.name not in ("manifest.jsonl", "export.json")
    }


@pytest.mark.parametrize("format", others_long(STORE_FORMATS, "npz", "parquet"))
@quick
@given(data=st.data())
def test_an_export_of_any_store_comes_back_and_goes_out_the_same(tmp_path, format, data):
    folder = tmp_path / str(next(numbers))
    url = drawn(folder / "clips.zarr", data.draw)
    ready = store.open(url).counts()["ready"]
    assert export_store(url, str(folder / "out"), format=format).written == ready
    result = imported(folder / "out", folder / "back.zarr", batch=data.draw(st.integers(1, 4)))
    assert (result.ready, result.failed) == (ready, {})
    assert contents(str(folder / "back.zarr")) == contents(url)
    assert store.verify(str(folder / "back.zarr")).ok
    export_store(str(folder / "back.zarr"), str(folder / "again"), format=format)
    if ready == len(store.open(url)):  # else the rows have other numbers, which shards are named by
        assert files_of(folder / "again") == files_of(folder / "out")


def npz(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    for name, values in arrays.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        np.savez(folder / f"{name}.npz", features=values)


def hdf5(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    with h5py.File(folder / "all.h5", "w") as file:
        for name, values in arrays.items():
            file[name] = values


def parquet(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    columns = {"id": list(arrays), "embedding": [values.tolist() for values in arrays.values()]}
    kind = pyarrow.list_(pyarrow.list_(pyarrow.from_numpy_dtype(next(iter(arrays.values())).dtype)))
    schema = pyarrow.schema([("id", pyarrow.string()), ("embedding", kind)])
    pyarrow.parquet.write_table(pyarrow.table(columns, schema), folder / "all.parquet")


def webdataset(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    with tarfile.open(folder / "all.tar", "w") as archive:
        for name, values in arrays.items():
            buffer = io.BytesIO()
            np.save(buffer, values)
            member = tarfile.TarInfo(f"./{name}.npy")
            member.size = buffer.tell()
            archive.addfile(member, io.BytesIO(buffer.getvalue()))


def read_back(folder: Path, format: str) -> dict[str, np.ndarray]:
    """The arrays of an export by id, read as others read that format."""
    lines = [json.loads(line) for line in (folder / "manifest.jsonl").open(encoding="utf-8")]
    found = {}
    for line in lines:
        path = folder / line["file"]
        if format == "npz":
            found[line["id"]] = np.load(path)["features"]
        elif format == "hdf5":
            with h5py.File(path) as file:
                found[line["id"]] = file[line["key"]][:]
        elif format == "parquet":
            row = pyarrow.parquet.read_table(path)["embedding"][int(line["key"])].as_py()
            found[line["id"]] = np.array(row, np.float32)
        else:
            with tarfile.open(path) as archive:
                data = archive.extractfile(f"{line['row']:09d}.npy").read()
            found[line["id"]] = np.load(io.BytesIO(data))
    return found


@pytest.mark.parametrize("write", [npz, hdf5, parquet, webdataset])
@quick
@given(data=st.data())
def test_what_others_wrote_goes_out_as_it_came_in(tmp_path, write, data):
    folder = tmp_path / str(next(numbers))
    (folder / "in").mkdir(parents=True)
    width = data.draw(st.integers(1, 6))
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    arrays = {
        f"wálk {i % 2}/v_🏃 {i}": random.normal(size=(data.draw(st.integers(1, 5)), width)).astype(
            "f4"
        )
        for i in range(data.draw(st.integers(1, 5)))
    }
    write(folder / "in", arrays)
    assert imported(folder / "in", folder / "clips.zarr", steps=5).ready == len(arrays)
    export_store(str(folder / "clips.zarr"), str(folder / "out"), format=write.__name__)
    back = read_back(folder / "out", write.__name__)
    assert {name: values.tolist() for name, values in back.items()} == {
        name: values.tolist() for name, values in arrays.items()
    }


@pytest.mark.parametrize("format", ["hdf5", "parquet", "webdataset", "npy"])
def test_rows_are_exported_in_parts_that_fit_into_memory(tmp_path, monkeypatch, format):
    url = str(tmp_path / "clips.zarr")
    layout = store.Layout(steps=2, shape=(8,), dtype="float16", batch=4)
    store.create(url, layout=layout, spec=SPEC, fingerprint=FINGERPRINT, software={})
    features = np.arange(20 * 16, dtype=np.float16).reshape(20, 2, 8)
    with store.Writer.acquire(url, owner="test") as writer:
        rows = writer.append(pd.DataFrame({"video_id": [f"c{i}" for i in range(20)]}))
        for number in range(5):
            part = np.array(writer.rows_of(number))
            digests = store.write_batch(url, number, features[part], token=writer.token)
            writer.set(part, digest=digests)
        writer.put_steps(rows, True, [[0, 1]], [[0, 1]])
        writer.mark(rows, store.READY)
        writer.flush()
    monkeypatch.setattr(exporting, "_PART_BYTES", 3 * 2 * 8 * 2)
    monkeypatch.setattr(formats, "_GROUP_BYTES", 2 * 2 * 8 * 2)
    largest: list[int] = []
    real = store.Store.load

    def watched(self: store.Store, rows: Any) -> Any:
        largest.append(len(rows))
        return real(self, rows)

    monkeypatch.setattr(store.Store, "load", watched)
    export_store(url, str(tmp_path / "out"), format=format)
    assert max(largest) == 3
    imported(tmp_path / "out", tmp_path / "back.zarr")
    assert contents(str(tmp_path / "back.zarr")) == contents(url)
