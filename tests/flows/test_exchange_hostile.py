"""Files that claim what they do not hold, and values that no export of ours writes."""

from __future__ import annotations

import io
import json
import os
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest

import store
from flows.cli.main import main
from flows.exchange import arrays, rows
from flows.exchange.exporting import export_store
from flows.exchange.hdf5 import dataset_writer
from flows.exchange.importing import import_clips
from flows.exchange.rows import Rules
from pipeline.errors import ConfigError
from pipeline.plain import write_table
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
        file.create_dataset("x", shape=(4, 1 << 26), dtype="f4", chunks=(1, 16))[0, 0] = 1
    with pytest.raises(ConfigError, match=r"a chunk of 64 rows .* --batch or --steps"):
        imported(tmp_path / "wide.h5", tmp_path / "clips.zarr")
    assert not (tmp_path / "clips.zarr").exists()
    with h5py.File(tmp_path / "long.h5", "w") as file:
        file.create_dataset("a", data=np.ones((3, 4), np.float32))
        file.create_dataset("x", shape=(1 << 40, 4), dtype="f4", chunks=(16, 4))[0, 0] = 1
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


def test_steps_of_unequal_width_are_a_reason(tmp_path: Path):
    rows = [[[1, 2], [3, 4]], [[1, 2, 3], [4]], [[1, 2], None], [[1, None], [2, 3]], None, [], [[]]]
    kind = pyarrow.list_(pyarrow.list_(pyarrow.float32()))
    columns = {"id": list("abcdefg"), "embedding": pyarrow.array(rows, kind)}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "x.parquet")
    result = imported(tmp_path / "x.parquet", tmp_path / "clips.zarr")
    assert result.ready == 1
    assert reasons(result) == {
        "b": "wrong_shape", "c": "wrong_dtype", "d": "wrong_dtype", "e": "no_frames",
        "f": "wrong_shape", "g": "wrong_shape",
    }  # fmt: skip
    fixed = pyarrow.list_(pyarrow.list_(pyarrow.float32(), 2))
    columns = {"id": ["a", "b"], "embedding": pyarrow.array([[[1, 2]], [[3, 4], None]], fixed)}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "y.parquet")
    result = imported(tmp_path / "y.parquet", tmp_path / "fixed.zarr")
    assert (result.ready, reasons(result)) == (1, {"b": "wrong_dtype"})


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path, capsys):
    save(tmp_path / "in" / "good.npy", np.ones((2, 3), np.float32))
    os.mkfifo(tmp_path / "in" / "pipe.npy")
    os.symlink("/dev/zero", tmp_path / "in" / "zero.npz")
    os.symlink(tmp_path / "nowhere.npy", tmp_path / "in" / "dangling.npy")
    result = imported(tmp_path / "in", tmp_path / "clips.zarr")
    assert result.ready == 1
    assert reasons(result) == {"pipe": "unreadable", "zero": "unreadable", "dangling": "missing"}
    for ending in ("h5", "tar", "parquet"):
        folder = tmp_path / ending
        folder.mkdir()
        os.mkfifo(folder / f"x.{ending}")
        assert main(["import", "--from", str(folder), "--store", str(tmp_path / "x.zarr")]) == 1
        assert "no regular file" in capsys.readouterr().err
    os.mkfifo(tmp_path / "in" / "export.json")
    (tmp_path / "in" / "manifest.jsonl").write_text('{"id": "a", "file": "good.npy"}\n')
    assert imported(tmp_path / "in", tmp_path / "named.zarr").ready == 1


def test_links_are_followed_and_circles_end(tmp_path: Path):
    save(tmp_path / "elsewhere" / "run" / "a.npy", np.ones((2, 3), np.float32))
    (tmp_path / "in" / "deep").mkdir(parents=True)
    os.symlink(tmp_path / "elsewhere" / "run", tmp_path / "in" / "walk")
    os.symlink(tmp_path / "in", tmp_path / "in" / "deep" / "up")
    os.symlink(tmp_path / "elsewhere" / "run" / "a.npy", tmp_path / "in" / "b.npy")
    (tmp_path / "in" / "._b.npy").write_bytes(b"AppleDouble")
    imported(tmp_path / "in", tmp_path / "clips.zarr")
    table = store.open(str(tmp_path / "clips.zarr")).table()
    assert table["video_id"].tolist() == ["b", "walk/a"]


def test_data_of_other_hdf5_files_are_not_read(tmp_path: Path):
    secret = np.full((2, 3), 7, np.float32)
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x"] = secret
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["good"] = np.ones((2, 3), np.float32)
        file["external"] = h5py.ExternalLink("secret.h5", "x")
        file["soft"] = h5py.SoftLink("/external")
        layout = h5py.VirtualLayout((2, 3), "f4")
        layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "x", (2, 3))
        file.create_virtual_dataset("virtual", layout)
        raw = tmp_path / "secret.bin"
        raw.write_bytes(secret.tobytes())
        file.create_dataset("bytes", (2, 3), "f4", external=[(str(raw), 0, 24)])
    assert imported(tmp_path / "x.h5", tmp_path / "listed.zarr").ready == 1
    names = ["good", "external", "soft", "virtual", "bytes", "nothing"]
    lines = [json.dumps({"id": name, "file": "x.h5", "key": name}) for name in names]
    (tmp_path / "manifest.jsonl").write_text("\n".join(lines))
    result = imported(tmp_path, tmp_path / "named.zarr")
    assert (result.ready, reasons(result)) == (1, dict.fromkeys(names[1:], "unreadable"))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_with_two_arrays_of_one_name_is_a_reason(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        for value in (1, 2):
            with archive.open("features.npy", "w") as member:
                np.save(member, np.full((3, 4), value, np.float32))
    np.save(tmp_path / "sound.npy", np.ones((3, 4), np.float32))
    result = imported(tmp_path, tmp_path / "clips.zarr", steps=4)
    assert (result.ready, reasons(result)) == (1, {"x": "unreadable"})


def test_an_hdf5_claim_without_values_is_no_million_rows(tmp_path: Path):
    """A file of 2 KB can claim any shape: split, it was a store of zeros."""
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("sound", data=np.ones((3, 4), np.float32))
        file.create_dataset("never", shape=(4_000_000, 4), dtype="f4")
        file.create_dataset("chunks", shape=(4_000_000, 4), chunks=(1000, 4), dtype="f4")
        file.create_dataset("none", shape=(0, 4), dtype="f4")
    result = imported(tmp_path / "x.h5", tmp_path / "clips.zarr", steps=4, long="split")
    assert result.ready == 1
    assert reasons(result) == {
        "never": "unreadable", "chunks": "unreadable", "none": "no_frames",
    }  # fmt: skip


def test_an_hdf5_file_that_was_cut_costs_its_own_rows(tmp_path: Path):
    with h5py.File(tmp_path / "x.h5", "w", libver="latest") as file:
        for name in "ab":
            file[name] = np.full((64, 512), ord(name), np.float32)
        where = {name: file[name].id.get_offset() for name in "ab"}
    data = (tmp_path / "x.h5").read_bytes()
    last = max(where, key=lambda name: where[name])
    # The length that the file says of itself stays, as in a copy whose end is a hole.
    (tmp_path / "x.h5").write_bytes(data[: where[last] + 100])
    with pytest.raises(ConfigError, match="cannot be read"):
        imported(tmp_path / "x.h5", tmp_path / "clips.zarr")


def test_other_orders_of_bytes_and_axes_are_the_same_values(tmp_path: Path):
    values = np.arange(12).reshape(3, 4)
    for name, array in {
        "little": values.astype("<f2"), "big": values.astype(">f2"),
        "fortran": np.asfortranarray(values.astype("<f2")),
        "both": np.asfortranarray(values.astype(">f2")),
    }.items():  # fmt: skip
        save(tmp_path / "in" / f"{name}.npy", array)
        with h5py.File(tmp_path / "in" / f"{name}.h5", "w") as file:
            file[f"h5-{name}"] = array
    assert imported(tmp_path / "in", tmp_path / "clips.zarr", steps=3).ready == 8
    opened = store.open(str(tmp_path / "clips.zarr"))
    assert opened.dtype == np.float16
    assert all(row.tolist() == values.tolist() for row in opened.load().features)


def tar(path: Path, members: dict[str, Any]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, values in members.items():
            buffer = io.BytesIO()
            np.save(buffer, values)
            member = tarfile.TarInfo(name)
            member.size = buffer.tell()
            archive.addfile(member, io.BytesIO(buffer.getvalue()))
    return path


def test_of_several_arrays_of_one_key_none_is_guessed(tmp_path: Path):
    one = np.ones((2, 3), np.float32)
    path = tar(
        tmp_path / "x.tar",
        {"./a.npy": one, "b.v1.npy": one, "b.v2.npy": 2 * one, "c.npy": one, "c.flow.npy": one,
         "d.rgb.npy": one, "../e.npy": one, "/f.npy": one},
    )  # fmt: skip
    result = imported(path, tmp_path / "clips.zarr")
    assert reasons(result) == {"b": "unreadable"}
    assert "which of v1.npy, v2.npy is not said" in result.failures[0]["detail"]
    table = store.open(str(tmp_path / "clips.zarr")).table()
    assert table["video_id"].tolist() == ["a", "b", "c", "d", "../e", "f"]
    export_store(str(tmp_path / "clips.zarr"), str(tmp_path / "out" / "in"), format="npy")
    assert not list(tmp_path.glob("out/*.npy"))


def test_a_damaged_header_in_a_tar_archive_does_not_end_it(tmp_path: Path):
    path = tar(tmp_path / "x.tar", {f"{n}.npy": np.ones((2, 3), np.float32) for n in range(4)})
    data = bytearray(path.read_bytes())
    data[2048 + 150] ^= 255  # in the checksum of the third member's header
    path.write_bytes(bytes(data))
    with pytest.raises(ConfigError, match="header at byte 2048 is damaged"):
        imported(path, tmp_path / "clips.zarr")


def test_urls_are_refused_where_files_are_needed(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "in" / "a.npy", np.ones((2, 3), np.float32))
    assert main(["import", "--from", "s3://bucket/in", "--store", "x.zarr"]) == 1
    assert "copy them here" in capsys.readouterr().err
    assert main(["import", "--from", "in", "--store", "x.zarr"]) == 0
    assert main(["export", "--store", "x.zarr", "--format", "npy", "--out", "s3://b/out"]) == 1
    assert main(["pack", "--store", "x.zarr", "--out", "s3://b/x.zip"]) == 1
    assert main(["pack", "--store", "x.zarr", "--out", "x.zip"]) == 0
    assert main(["unpack", "--store", "x.zip", "--out", "s3://b/y.zarr"]) == 1
    assert capsys.readouterr().err.count("copy it") == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "x.zarr", "x.zip"]


def test_texts_that_hdf5_does_not_know_and_long_rows_go_out(tmp_path: Path):
    times = np.arange(20_000, dtype=np.float32)  # more bytes than a header of HDF5 has
    with (tmp_path / "long.h5").open("x+b") as file, dataset_writer(file, len(times)) as write:
        write("x", times[:, None], {"label": "z" * 70_000}, {"times": times})
    with h5py.File(tmp_path / "long.h5") as file:
        assert file["x"][:, 0].tolist() == file["x"].attrs["times"].tolist() == times.tolist()
        assert file["x"].attrs["label"] == "z" * 70_000
    save(tmp_path / "in" / "a.npy", np.ones((2, 2), np.float32))
    line = json.dumps({"id": "a\0b", "file": "a.npy", "label": "x\0y"})
    (tmp_path / "in" / "manifest.jsonl").write_text(f"{line}\n")
    url = str(tmp_path / "clips.zarr")
    assert imported(tmp_path / "in", url).ready == 1
    export_store(url, str(tmp_path / "out"), format="hdf5")
    imported(tmp_path / "out", tmp_path / "back.zarr")
    assert contents(str(tmp_path / "back.zarr")) == contents(url)
    with h5py.File(tmp_path / "out" / "features-000000.h5") as file:
        assert file["000000000"].attrs["id"] == "a\N{REPLACEMENT CHARACTER}b"


def test_labels_in_a_file_are_what_they_are(tmp_path: Path):
    labels = ["a,b", "two\nlines", 'say "x"', "=1+1", "@x", "'quoted", "wálk 🏃", "-1"]
    for i in range(len(labels)):
        save(tmp_path / "in" / f"={i}.npy", np.ones((2, 3), np.float32))
    frame = pd.DataFrame({"id": [f"={i}" for i in range(len(labels))], "label": labels})
    write_table(frame, tmp_path / "safe.csv")  # as our own tables are: no spreadsheet runs it
    frame.to_csv(tmp_path / "plain.csv", index=False)
    for name in ("safe", "plain"):
        imported(tmp_path / "in", tmp_path / f"{name}.zarr", labels=tmp_path / f"{name}.csv")
        assert store.open(str(tmp_path / f"{name}.zarr")).table()["label"].tolist() == labels


def test_an_import_in_several_sittings_is_one_store(tmp_path: Path, capsys):
    url, out = str(tmp_path / "clips.zarr"), str(tmp_path / "clips.zip")
    for i, name in enumerate("abc"):
        save(tmp_path / name / f"{name}.npy", np.full((2, 3), i, np.float32))
    for name in "ab":
        words = ["import", "--from", str(tmp_path / name), "--store", url, "--source", "i3d"]
        assert main(words) == 0
    capsys.readouterr()
    assert main(["import", "--from", str(tmp_path / "c"), "--store", url]) == 1
    assert "source 'i3d', not 'c': give --source" in capsys.readouterr().err
    other = [*words[:2], str(tmp_path / "c"), *words[3:]]
    assert main([*other, "--steps", "7"]) == 1
    assert "steps 40, not 7: give --steps" in capsys.readouterr().err
    assert main([*other, "--dtype", "float16"]) == 1
    assert "dtype 'float32', not 'float16': give --dtype" in capsys.readouterr().err
    assert main(other) == 0
    assert main(["pack", "--store", url, "--out", out]) == 0
    sheet = store.read_datasheet(out)
    assert sheet["rows"]["ready"] == 3
    assert sheet["spec"]["source"] == "i3d"
    assert set(contents(out)) == {"a", "b", "c"}
