"""Files that claim what they do not hold, and values that no export of ours writes."""

from __future__ import annotations

import json
import os
import struct
import tarfile
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

import store
from flows.cli.main import main
from flows.exchange import arrays, rows
from flows.exchange.exporting import export_store
from flows.exchange.importing import import_clips
from flows.exchange.rows import Rules
from pipeline.errors import ConfigError
from tests.flows.test_exchange import contents, imported, save


def reasons(result: Any) -> dict[str, str]:
    return {failure["id"]: failure["reason"] for failure in result.failures}


def npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def test_headers_that_are_no_header_of_an_array_are_failed_rows(tmp_path: Path):
    folder = tmp_path / "in"
    save(folder / "good.npy", np.ones((4, 8), np.float32))
    plain = "{{'descr': '<f4', 'fortran_order': {}, 'shape': {}, }}"
    for name, header in {
        "minus": plain.format(False, "-" * 9000 + "1"), "open": "(" * 9000,
        "minus_short": plain.format(False, "-" * 4000 + "1"), "open_short": "[" * 3000,
        "negative": plain.format(False, "(-4, -8)"), "fortran": plain.format(True, "(-4, -8)"),
    }.items():  # fmt: skip
        (folder / f"{name}.npy").write_bytes(npy(header, bytes(128)))
    result = imported(folder, tmp_path / "clips.zarr")
    assert result.ready == 1
    assert set(reasons(result).values()) == {"unreadable"}
    assert len(result.failures) == 6


def test_an_hdf5_chunk_is_not_unpacked_beyond_the_limit(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(arrays, "MOST_BYTES", 1 << 16)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("a", data=np.ones((4, 8), np.float32))
        one = {"maxshape": (None, 8), "compression": "gzip", "dtype": "f4"}
        file.create_dataset("b", shape=(4, 8), chunks=(4096, 8), **one)[:] = 1
        file.create_dataset("c", shape=(4, 8), chunks=(64, 8), **one)[:] = 1
    result = imported(tmp_path / "x.h5", tmp_path / "clips.zarr")
    assert (result.ready, reasons(result)) == (2, {"b": "too_large"})


def test_an_hdf5_chunk_that_unpacks_to_more_than_it_has_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "MOST_BYTES", 1 << 20)
    one = {"maxshape": (None, 8), "compression": "gzip", "dtype": "f4"}
    bomb = zlib.compress(bytes(64 << 20))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("a", data=np.ones((4, 8), np.float32))
        for name, rows, data in (("b", 64, bomb), ("c", 8192, bomb)):
            made = file.create_dataset(name, shape=(4, 8), chunks=(rows, 8), **one)
            made.id.write_direct_chunk((0, 0), data)
        values = np.random.default_rng(0).normal(size=(8192, 8)).astype("f4")
        file.create_dataset(
            "d", shape=(4, 8), chunks=(8192, 8), shuffle=True, fletcher32=True, **one
        )
        file["d"].resize((8192, 8))
        file["d"][:] = values
        file["d"].resize((4, 8))
    result = imported(tmp_path / "x.h5", tmp_path / "clips.zarr")
    assert (result.ready, reasons(result)) == (2, {"b": "too_large", "c": "too_large"})
    np.testing.assert_array_equal(
        store.open(str(tmp_path / "clips.zarr")).load([3]).features[0, :4], values[:4]
    )


def parquet(path: Path, lengths: list[int], width: int = 4) -> np.ndarray:
    """A row group of clips, `lengths` steps each; returns all steps."""
    flat = np.arange(sum(lengths) * width, dtype=np.float32)
    steps = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(flat), width)
    ends = np.cumsum([0, *lengths]).astype(np.int32)
    ids = [f"p{i:03d}" for i in range(len(lengths))]
    columns = {"id": ids, "embedding": pyarrow.ListArray.from_arrays(ends, steps)}
    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=100)
    return flat.reshape(-1, width)


def test_a_parquet_row_group_is_read_in_parts_beyond_the_limit(tmp_path: Path, monkeypatch):
    values = parquet(tmp_path / "x.parquet", [1 + i % 3 for i in range(150)])
    imported(tmp_path / "x.parquet", tmp_path / "whole.zarr", steps=3, batch=32)
    monkeypatch.setattr(arrays, "MOST_BYTES", 512)
    largest: list[int] = []
    real = pyarrow.parquet.ParquetFile.iter_batches

    def watched(self: Any, *words: Any, **more: Any) -> Any:
        for batch in real(self, *words, **more):
            if "embedding" in batch.schema.names:
                largest.append(batch.nbytes)
            yield batch

    monkeypatch.setattr(pyarrow.parquet.ParquetFile, "iter_batches", watched)
    result = imported(tmp_path / "x.parquet", tmp_path / "clips.zarr", steps=3, batch=32)
    assert result.ready == 150
    assert contents(str(tmp_path / "clips.zarr")) == contents(str(tmp_path / "whole.zarr"))
    loaded = store.open(str(tmp_path / "clips.zarr")).load()
    np.testing.assert_array_equal(loaded.features[loaded.mask], values)
    assert max(largest) < 2048
    parquet(tmp_path / "y.parquet", [1] * 100 + [1, 400])
    result = imported(tmp_path / "y.parquet", tmp_path / "large.zarr", steps=500)
    assert (result.ready, reasons(result)) == (100, {"p100": "too_large", "p101": "too_large"})


def test_a_claim_of_width_or_length_is_bounded(tmp_path: Path, monkeypatch):
    with h5py.File(tmp_path / "wide.h5", "w") as file:
        file.create_dataset("x", shape=(4, 1 << 26), dtype="f4")
    with pytest.raises(ConfigError, match=r"a chunk of 64 rows .* --batch or --steps"):
        imported(tmp_path / "wide.h5", tmp_path / "clips.zarr")
    assert not (tmp_path / "clips.zarr").exists()
    with h5py.File(tmp_path / "long.h5", "w") as file:
        file.create_dataset("a", data=np.ones((3, 4), np.float32))
        file.create_dataset("x", shape=(1 << 40, 4), dtype="f4", chunks=(16, 4))
    result = imported(tmp_path / "long.h5", tmp_path / "long.zarr", steps=4, long="split")
    assert (result.ready, reasons(result)) == (1, {"x": "too_long"})
    save(tmp_path / "in" / "a.npy", np.ones((3, 4), np.float32))
    np.savez(tmp_path / "in" / "b.npz", features=np.ones((9, 4), np.float32), times=np.arange(9.0))
    monkeypatch.setattr(arrays, "MOST_BYTES", 64)
    result = imported(tmp_path / "in", tmp_path / "times.zarr", steps=9)
    assert (result.ready, reasons(result)) == (1, {"b": "too_large"})


@pytest.mark.parametrize(
    "odd",
    [
        {"frames": "abcd", "times": "abcd", "fps": "fast", "frames_declared": "many"},
        {"frames": [0, 1, 2, 1e300], "times": ["a"] * 4, "fps": 1e300, "frames_declared": 2**40},
        {"frames": [0, 1, 2, 2**40], "times": [0, 1, 2, 10**400], "fps": float("nan"),
         "frames_declared": -2**40},
        {"frames": [0.5, 1, 2, 3], "times": [0, 1, 2, float("nan")], "fps": [25],
         "frames_declared": True},
        {"frames": {"a": 1}, "times": [[0], [1], [2], [3]], "fps": -25, "frames_declared": 2.5},
        {"frames": [True] * 4, "times": None, "fps": "1e5", "frames_declared": None,
         "digest": "12", "label": None},
    ],
)  # fmt: skip
def test_values_that_do_not_fit_count_as_untold(tmp_path: Path, odd: dict[str, Any]):
    save(tmp_path / "in" / "a.npy", np.ones((4, 3), np.float32))
    line = json.dumps({"id": "a", "file": "a.npy", **odd})
    (tmp_path / "in" / "manifest.jsonl").write_text(f"{line}\n")
    about = {"steps": "many", "transpose": "no", "source": 5, "fingerprint": []}
    (tmp_path / "in" / "export.json").write_text(json.dumps(about))
    result = imported(tmp_path / "in", tmp_path / "clips.zarr")
    assert result.ready == 1
    opened = store.open(str(tmp_path / "clips.zarr"))
    table = opened.table()
    assert np.isnan(table["fps"][0])
    assert table["frames_declared"][0] == -1
    assert table["label"][0] == ""
    frames, times = opened.steps_of([0])
    assert frames[0][:5].tolist() == [0, 1, 2, 3, -1]
    assert times[0][:4].tolist() == [0, 1, 2, 3]


def test_what_fits_is_told(tmp_path: Path):
    save(tmp_path / "in" / "a.npy", np.ones((2, 3), np.float32))
    values = {"frames": [3, 9], "times": [0.5, 2], "fps": 25, "frames_declared": 50}
    line = json.dumps({"id": "a", "file": "a.npy", **values})
    (tmp_path / "in" / "manifest.jsonl").write_text(f"{line}\n")
    (tmp_path / "in" / "export.json").write_text("[]")
    imported(tmp_path / "in", tmp_path / "clips.zarr")
    export_store(str(tmp_path / "clips.zarr"), str(tmp_path / "out"), format="npy")
    told = json.loads((tmp_path / "out" / "manifest.jsonl").read_text())
    assert {name: told[name] for name in values} == values


@pytest.mark.parametrize("text", ["[" * 100_000, '"text"', "[1]", '{"id": "a"}'])
def test_a_line_or_a_member_that_is_no_clip_is_no_traceback(tmp_path: Path, capsys, text: str):
    save(tmp_path / "in" / "a.npy", np.ones((2, 3), np.float32))
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "in" / "a.npy", "a.npy")
        (tmp_path / "a.json").write_text(text)
        archive.add(tmp_path / "a.json", "a.json")
    assert imported(tmp_path / "a.tar", tmp_path / "tar.zarr").ready == 1
    (tmp_path / "in" / "manifest.jsonl").write_text(f"{text}\n")
    words = ["import", "--from", str(tmp_path / "in"), "--store", str(tmp_path / "clips.zarr")]
    assert main(words) == 1
    assert "line 1 of" in capsys.readouterr().err


def test_names_that_are_not_utf8_are_refused_by_name(tmp_path: Path):
    save(tmp_path / "in" / "a.npy", np.ones((2, 3), np.float32))
    os.rename(tmp_path / "in" / "a.npy", os.fsencode(tmp_path / "in") + b"/\xff.npy")
    with pytest.raises(ConfigError, match=r"'\\udcff'.*not UTF-8"):
        imported(tmp_path / "in", tmp_path / "clips.zarr")
    line = json.dumps({"id": "a", "file": "\0.npy", "label": "\ud800"})
    (tmp_path / "in" / "manifest.jsonl").write_text(f"{line}\n")
    with pytest.raises(ConfigError, match=r"'\\ud800'.*not UTF-8"):
        imported(tmp_path / "in", tmp_path / "clips.zarr")
    assert not (tmp_path / "clips.zarr").exists()


def test_a_file_with_the_name_of_anothers_piece_is_refused(tmp_path: Path):
    save(tmp_path / "in" / "b.npy", np.ones((9, 3), np.float32))
    save(tmp_path / "in" / "b#steps=0,4.npy", np.ones((4, 3), np.float32))
    with pytest.raises(ConfigError, match=r"two arrays of the id 'b#steps=0,4'"):
        imported(tmp_path / "in", tmp_path / "clips.zarr", steps=4, long="split")
    assert not (tmp_path / "clips.zarr").exists()


def test_rows_of_a_chunk_are_bounded_by_what_the_store_has(tmp_path: Path, monkeypatch):
    save(tmp_path / "in" / "a.npy", np.ones((4, 3), np.float32))
    monkeypatch.setattr(rows, "MOST_CHUNK_BYTES", 4 * 3 * 4 * 8)
    url = str(tmp_path / "clips.zarr")
    with pytest.raises(ConfigError, match="a chunk of 9 rows"):
        import_clips(str(tmp_path / "in"), Rules(store=url, steps=4, batch=9))
    import_clips(str(tmp_path / "in"), Rules(store=url, steps=4, batch=8))
    assert import_clips(str(tmp_path / "in"), Rules(store=url, steps=4)).kept == 1
