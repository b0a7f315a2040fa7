"""Archives of one clip: NumPy reads what is written, and what is not as we write it goes by zipfile."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.exchange import arrays
from flows.exchange.arrays import open_npz
from flows.exchange.exporting import export_store
from flows.exchange.formats import Clip, _write_npz
from pipeline.errors import UnreadableClip
from tests.flows.test_exchange import made


def written(path: Path, values: np.ndarray) -> Path:
    count = len(values)
    clip = Clip(
        row=0, id="a", label="", split="", group="", features=values, fps=25.0, frames_declared=-1,
        frames=np.arange(count, dtype=np.int32) * 3, times=np.arange(count, dtype=np.float32) / 8,
        stored=0, row_steps=count,
    )  # fmt: skip
    with path.open("wb") as file:
        _write_npz(file, clip, values)
    return path


@settings(max_examples=30, deadline=None)
@given(
    steps=st.integers(0, 300),
    shape=st.sampled_from([(1,), (7,), (33, 4), (3, 4, 3)]),
    dtype=st.sampled_from(["float16", "float32", "uint8"]),
)
def test_numpy_and_zipfile_read_what_was_written(tmp_path_factory, steps, shape, dtype):
    values = (np.random.default_rng(steps).random((steps, *shape)) * 200).astype(dtype)
    path = written(tmp_path_factory.mktemp("npz") / "x.npz", values)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    with np.load(path, allow_pickle=False) as archive:
        assert sorted(archive) == ["features", "frames", "times"]
        assert archive["features"].dtype == values.dtype
        np.testing.assert_array_equal(archive["features"], values)
        assert archive["frames"].tolist() == [3 * n for n in range(steps)]
        assert archive["times"].tolist() == [n / 8 for n in range(steps)]
    foreign = open_npz(path)
    np.testing.assert_array_equal(foreign.read(0, steps), values)
    np.testing.assert_array_equal(foreign.read(steps // 2, steps), values[steps // 2 :])
    assert foreign.frames.tolist() == [3 * n for n in range(steps)]


def test_exports_are_read_in_place_and_other_archives_by_zipfile(tmp_path: Path, monkeypatch):
    export_store(made(tmp_path / "clips.zarr"), str(tmp_path / "out"), format="npz")
    values = np.ones((3, 5), np.float32)
    np.savez(tmp_path / "savez.npz", features=values)
    np.savez_compressed(tmp_path / "compressed.npz", features=values)

    def refused(*words: object) -> None:
        raise AssertionError("by zipfile")

    for name in ("savez", "compressed"):
        np.testing.assert_array_equal(open_npz(tmp_path / f"{name}.npz").read(0, 3), values)
    monkeypatch.setattr(arrays.zipfile, "ZipFile", refused)
    found = sorted((tmp_path / "out").rglob("*.npz"))
    assert len(found) == 15
    for path in found:
        foreign = open_npz(path)
        foreign.read(0, foreign.shape[0])
    with pytest.raises(UnreadableClip, match="by zipfile"):
        open_npz(tmp_path / "savez.npz")


def test_no_turned_byte_is_read_as_the_clips(tmp_path: Path):
    """Every byte in turn, without a manifest's digest: the same values, or a reason."""
    values = np.arange(10, dtype=np.float16).reshape(2, 5)
    path = written(tmp_path / "x.npz", values)
    whole = path.read_bytes()
    refused = 0
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        try:
            foreign = open_npz(path)
            found = foreign.read(0, foreign.shape[0])
        except UnreadableClip:
            refused += 1
            continue
        np.testing.assert_array_equal(found, values, err_msg=f"byte {at}")
        assert foreign.frames is None or foreign.frames.tolist() == [0, 3]
    assert refused > len(values.tobytes()) + 128
