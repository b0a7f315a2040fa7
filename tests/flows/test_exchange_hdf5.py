"""HDF5 files are written without HDF5, and HDF5 reads, checks and changes them as its own."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.exchange.hdf5 import Hdf5File
from flows.exchange.hdf5_file import ContiguousWriter

TEXTS = st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), max_size=30)


def written(path: Path, sets: dict[str, np.ndarray], texts: list[dict[str, str]]) -> Path:
    with path.open("wb") as file:
        writer = ContiguousWriter(file)
        for (name, values), told in zip(sets.items(), texts, strict=True):
            count = np.arange(len(values))
            numbers = {"times": (count / 8).astype(np.float32), "frames": count.astype(np.int32)}
            writer.add(name, values, told, numbers)
        writer.close()
    return path


@settings(max_examples=40, deadline=None)
@given(
    shapes=st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=4), max_size=20),
    dtype=st.sampled_from(["float16", "float32", "float64", "uint8"]),
    texts=st.lists(st.tuples(TEXTS, TEXTS), min_size=20, max_size=20),
)
def test_h5py_reads_what_was_written(tmp_path_factory, shapes, dtype, texts):
    rng = np.random.default_rng(len(shapes))
    sets = {
        f"{i * 7:03d}": rng.integers(0, 200, shape).astype(dtype) for i, shape in enumerate(shapes)
    }
    told = [{"id": a, "label 🏃": b} for a, b in texts[: len(sets)]]
    path = written(tmp_path_factory.mktemp("h5") / "a.h5", sets, told)
    with h5py.File(path) as file, closing(Hdf5File(path)) as ours:
        assert list(file) == sorted(sets)
        for (name, values), texts_ in zip(sets.items(), told, strict=True):
            attributes = dict(file[name].attrs)
            assert {key: attributes[key] for key in texts_} == texts_
            assert attributes["times"].tolist() == [n / 8 for n in range(len(values))]
            assert attributes["frames"].tolist() == list(range(len(values)))
            assert attributes["frames"].dtype == np.int32
            assert file[name].dtype == values.dtype
            np.testing.assert_array_equal(file[name][...], values)
            if values.size:
                found = ours.open(name, transpose=False)
                np.testing.assert_array_equal(found.read(0, len(values)), values)


@pytest.mark.parametrize("count", [0, 1, 8, 9, 256, 257, 700])
def test_every_name_is_found_and_no_other(tmp_path: Path, count: int):
    names = [f"{n * 3:05d}" for n in np.random.default_rng(0).permutation(count).tolist()]
    sets = {name: np.full((2, 3), int(name), np.float32) for name in names}
    path = written(tmp_path / "a.h5", sets, [{"id": name} for name in names])
    with h5py.File(path) as file:
        assert len(file) == count
        for n in range(3 * count + 1):
            assert (f"{n:05d}" in file) == (f"{n:05d}" in sets)
        for name in names:
            assert (file[name][...] == int(name)).all()
            assert file[name].attrs["id"] == name


def test_the_same_data_make_the_same_file(tmp_path: Path):
    sets = {"a": np.ones((2, 3), np.float16), "b": np.zeros((1, 3), np.float16)}
    files = [written(tmp_path / name, sets, [{"id": "x"}, {"id": ""}]) for name in ("1", "2")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_hdf5_goes_on_with_such_a_file(tmp_path: Path):
    sets = {f"{n:03d}": np.full((2, 3), n, np.float16) for n in range(40)}
    path = written(tmp_path / "a.h5", sets, [{"id": name, "label": ""} for name in sets])
    with h5py.File(path, "a") as file:
        del file["003"], file["004"].attrs["label"]
        file["005"].attrs["id"] = "another, and a longer one"
        file["006"].attrs["new"] = np.arange(500)
        file["007"][...] = 9
        for n in range(100, 200):
            file[f"{n:03d}"] = np.arange(n)
    with h5py.File(path) as file:
        assert len(file) == 139
        assert dict(file["005"].attrs)["id"] == "another, and a longer one"
        assert len(file["006"].attrs["new"]) == 500
        assert "label" not in file["004"].attrs
        assert (file["007"][...] == 9).all()
        assert file["199"].shape == (199,)
        for n in (0, 8, 39):
            assert (file[f"{n:03d}"][...] == n).all()
            assert file[f"{n:03d}"].attrs["id"] == f"{n:03d}"


def test_a_file_of_too_many_texts_is_refused(tmp_path: Path):
    with (tmp_path / "a.h5").open("wb") as file:
        writer = ContiguousWriter(file)
        texts = {f"t{n}": "" for n in range(1 << 16)}
        writer.add("a", np.ones((1, 1), np.float32), texts, {})
        with pytest.raises(ValueError, match="write fewer"):
            writer.close()
