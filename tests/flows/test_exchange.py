"""Out of a store and into another: nothing is lost; what is hostile is a reason or one sentence."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import store
from flows.cli.export import STORE_FORMATS
from flows.cli.main import main
from flows.exchange.exporting import export_store
from flows.exchange.importing import import_clips
from flows.exchange.manifest import FileNames
from flows.exchange.rows import Rules
from tests.store.stores import FINGERPRINT, SPEC

HOSTILE_IDS = [
    "run/a b 🎬.mp4", "../../etc/passwd", "/abs/x.mp4", "s3://bucket/y.mp4", "a", "a/b", "a.npy/c",
    "A", "x\\y", "_/z", "con:1", "n" * 300, "trailing ", "dir/../up", "q?*", "t.mp4#t=1.5,3",
]  # fmt: skip


def made(
    path: Path, *, dtype: str = "float16", shape: tuple[int, ...] = (5,), seed: int = 0
) -> str:
    """A store of clips with hostile ids, 1 to 4 steps each, some labels empty, one row failed."""
    layout = store.Layout(steps=4, shape=shape, dtype=dtype, batch=4)
    store.create(str(path), layout=layout, spec=SPEC, fingerprint=FINGERPRINT, software={})
    random = np.random.default_rng(seed)
    count = len(HOSTILE_IDS)
    mask = np.arange(4) < random.integers(1, 5, count)[:, None]
    values = random.normal(size=(count, 4, *shape)) * 50
    features = np.abs(values).astype(dtype) if dtype == "uint8" else values.astype(dtype)
    features[~mask] = 0
    frames = np.where(mask, np.cumsum(random.integers(1, 9, mask.shape), axis=1), -1)
    times = np.where(mask, frames / np.float32(29.97), np.nan).astype(np.float32)
    table = pd.DataFrame({"video_id": HOSTILE_IDS})
    table["label"] = [["run", "", "wálk 🏃"][i % 3] for i in range(count)]
    table["split"] = [["train", "test", ""][i % 3] for i in range(count)]
    table["group"] = [f"g{i % 5}" if i % 2 else "" for i in range(count)]
    with store.Writer.acquire(str(path), owner="test") as writer:
        rows = writer.append(table)
        for batch in range(count // 4):
            part = np.array(writer.rows_of(batch))
            digests = store.write_batch(str(path), batch, features[part], token=writer.token)
            writer.set(part, digest=digests)
        writer.put_steps(rows, mask, frames, times)
        writer.mark(rows, store.READY)
        writer.mark([7], store.FAILED, "no_frames")
        writer.flush()
    return str(path)


def contents(url: str) -> dict[str, tuple]:
    opened = store.open(url)
    table = opened.table()
    ready = table.index[table["state"] == "ready"].to_numpy()
    loaded = opened.load(ready)
    frames, times = opened.steps_of(ready)
    said = table.loc[ready, ["video_id", "label", "split", "group"]].values.tolist()
    return {
        name: (*rest, f.dtype, f.tobytes(), m.tobytes(), i.tobytes(), t.tobytes())
        for (name, *rest), f, m, i, t in zip(
            said, loaded.features, loaded.mask, frames, times, strict=True
        )
    }


def imported(path: object, url: object, **rules: object) -> object:
    labels = str(rules.pop("labels", ""))
    transpose = bool(rules.pop("transpose", False))
    return import_clips(
        str(path), Rules(store=str(url), **rules), labels=labels, transpose=transpose
    )


@pytest.mark.parametrize("format", STORE_FORMATS)
def test_what_is_exported_comes_back_bit_for_bit(tmp_path: Path, format: str):
    url = made(tmp_path / "clips.zarr")
    result = export_store(url, str(tmp_path / "out"), format=format)
    assert result.written == len(HOSTILE_IDS) - 1
    imported(tmp_path / "out", tmp_path / "back.zarr")
    assert contents(url) == contents(str(tmp_path / "back.zarr"))
    assert store.verify(str(tmp_path / "back.zarr")).ok
    again = export_store(url, str(tmp_path / "out"), format=format)
    assert (again.written, again.kept) == (0, len(HOSTILE_IDS) - 1)
    files = [path for path in tmp_path.rglob("*") if ".partial" in path.name]
    assert not files
    assert sorted(p.name for p in tmp_path.iterdir()) == ["back.zarr", "clips.zarr", "out"]


@pytest.mark.parametrize("format", ["npy", "hdf5", "parquet", "webdataset"])
@pytest.mark.parametrize(("dtype", "shape"), [("float32", (1,)), ("uint8", (3, 4, 3))])
def test_other_dtypes_and_shapes_come_back(tmp_path: Path, format: str, dtype: str, shape: tuple):
    url = made(tmp_path / "clips.zarr", dtype=dtype, shape=shape)
    if format == "parquet" and len(shape) > 1:
        pytest.skip("Parquet rows are T × D: the shape of a picture is flattened")
    export_store(url, str(tmp_path / "out"), format=format)
    imported(tmp_path / "out", tmp_path / "back.zarr")
    assert contents(url) == contents(str(tmp_path / "back.zarr"))


def test_d_by_t_comes_back(tmp_path: Path):
    url = made(tmp_path / "clips.zarr")
    for format in ("npy", "npz"):
        export_store(url, str(tmp_path / format), format=format, transpose=True)
        imported(tmp_path / format, tmp_path / f"{format}.zarr")
        assert contents(url) == contents(str(tmp_path / f"{format}.zarr"))
    line = json.loads((tmp_path / "npy" / "manifest.jsonl").read_text().splitlines()[0])
    assert np.load(tmp_path / "npy" / line["file"]).shape == (5, len(line["times"]))


names = st.text(st.characters(blacklist_categories=("Cs",)), min_size=1, max_size=12)


@given(st.lists(names, unique=True, max_size=12))
def test_names_of_files_are_different_and_inside(ids: list[str]):
    named = FileNames(ids, ".npy")
    paths = [named.of(at, name) for at, name in enumerate(ids)]
    assert len({path.lower() for path in paths}) == len(ids)
    for path in paths:
        assert not path.startswith("/")
        assert not {"", ".", ".."} & set(path.split("/"))
        assert len(path.split("/")[-1].encode()) < 240


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_a_folder_of_arrays_comes_out_as_it_went_in(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("folder")
    dtype = data.draw(st.sampled_from(["<f2", "<f4"]))
    width = data.draw(st.integers(1, 7))
    originals = {}
    for number in range(data.draw(st.integers(1, 6))):
        steps = data.draw(st.integers(1, 5))
        name = f"wálk {number % 2}/v_🏃 {number}.npy"
        (folder / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(number)
        np.save(folder / "in" / name, random.normal(size=(steps, width)).astype(dtype))
        originals[name] = (folder / "in" / name).read_bytes()
    result = imported(folder / "in", folder / "clips.zarr", steps=5)
    assert result.ready == len(originals)
    export_store(str(folder / "clips.zarr"), str(folder / "out"), format="npy")
    for name, content in originals.items():
        assert (folder / "out" / name).read_bytes() == content
    assert set(store.open(str(folder / "clips.zarr")).classes) <= {"wálk 0", "wálk 1"}


def test_readers_that_know_nothing_of_us_read_each_format(tmp_path: Path):
    import pyarrow.parquet

    url = made(tmp_path / "clips.zarr")
    opened = store.open(url)
    first = opened.load([0])
    real = first.features[0][first.mask[0]]
    for format in STORE_FORMATS:
        export_store(url, str(tmp_path / format), format=format)
    lines = (tmp_path / "npz" / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    line = json.loads(lines[0])
    assert line["id"] == HOSTILE_IDS[0]
    with np.load(tmp_path / "npz" / line["file"]) as archive:
        np.testing.assert_array_equal(archive["features"], real)
        assert len(archive["times"]) == len(real)
    with h5py.File(tmp_path / "hdf5" / "features-000000.h5") as file:
        np.testing.assert_array_equal(file["000000000"][:], real)
        assert file["000000000"].attrs["label"] == "run"
    table = pyarrow.parquet.read_table(tmp_path / "parquet" / "features-000000.parquet")
    assert table["id"][0].as_py() == HOSTILE_IDS[0]
    np.testing.assert_array_equal(np.array(table["embedding"][0].as_py(), np.float16), real)
    with tarfile.open(tmp_path / "webdataset" / "features-000000.tar") as archive:
        np.testing.assert_array_equal(
            np.load(io.BytesIO(archive.extractfile("000000000.npy").read())), real
        )
        assert json.load(archive.extractfile("000000000.json"))["label"] == "run"
    found = json.loads((tmp_path / "activitynet" / "annotations.json").read_text())["database"]
    assert len(found) == len(HOSTILE_IDS) - 1
    one = found[HOSTILE_IDS[0]]
    np.testing.assert_array_equal(np.load(tmp_path / "activitynet" / f"{HOSTILE_IDS[0]}.npy"), real)
    assert one["annotations"][0]["label"] == "run"
    assert one["annotations"][0]["segment"] == [0.0, one["duration"]]
    assert {"duration", "fps", "feat_stride", "num_frames", "subset", "frame"} <= set(one)


def save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values, allow_pickle=True)


def test_what_cannot_be_used_is_a_row_with_its_reason(tmp_path: Path):
    folder = tmp_path / "in"
    good = np.ones((3, 4), np.float32)
    save(folder / "run" / "good.npy", good)
    save(
        folder / "run" / "fortran.npy",
        np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4)),
    )
    save(folder / "run" / "objects.npy", np.array([{"a": 1}, None], object))
    save(folder / "run" / "nan.npy", np.full((3, 4), np.nan, np.float32))
    save(folder / "run" / "wide.npy", np.ones((3, 5), np.float32))
    save(folder / "run" / "long.npy", np.ones((9, 4), np.float32))
    save(folder / "run" / "none.npy", np.ones((0, 4), np.float32))
    save(folder / "run" / "half.npy", np.ones((3, 4), np.float16))
    save(folder / "run" / "complex.npy", np.ones((3, 4), complex))
    save(folder / "run" / "scalar.npy", np.float32(3))
    (folder / "run" / "cut.npy").write_bytes((folder / "run" / "good.npy").read_bytes()[:-3])
    (folder / "run" / "empty.npy").write_bytes(b"")
    (folder / "run" / "model.pkl").write_bytes(pickle.dumps(good))
    (folder / "run" / "named.npy").write_bytes(pickle.dumps(good))
    head = b"\x93NUMPY\x01\x00\x76\x00"
    claim = b"{'descr': '<f4', 'fortran_order': False, 'shape': (655360, 4096), }"
    (folder / "run" / "claims.npy").write_bytes(head + claim.ljust(117) + b"\n" + b"x" * 64)
    (folder / "run" / "header.npy").write_bytes(b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + b"{" * 64)
    with zipfile.ZipFile(folder / "run" / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        big = head + b"{'descr': '<f4', 'fortran_order': False, 'shape': (16384, 4), }".ljust(117)
        with archive.open("features.npy", "w", force_zip64=True) as member:
            member.write(big + b"\n" + bytes(16384 * 16))
    (folder / "run" / "hollow.npz").write_bytes(b"PK\5\6" + bytes(18))
    result = imported(folder, tmp_path / "clips.zarr", steps=4)
    table = store.open(str(tmp_path / "clips.zarr")).table().set_index("video_id")
    assert result.ready == 2
    reasons = {name.removeprefix("run/"): r for name, r in table["reason"].items() if r}
    assert reasons == {
        "objects": "pickled", "nan": "not_finite", "wide": "wrong_shape", "long": "too_long",
        "half": "wrong_dtype", "complex": "wrong_dtype", "scalar": "wrong_shape",
        "cut": "unreadable", "empty": "unreadable", "model": "pickled", "named": "pickled",
        "claims": "unreadable", "header": "unreadable", "bomb": "too_long",
        "none": "no_frames", "hollow": "unreadable",
    }  # fmt: skip


def folder_of(path: Path, count: int = 24, steps: int = 4, width: int = 6) -> Path:
    for number in range(count):
        values = np.random.default_rng(number).normal(size=(1 + number % steps, width))
        save(path / f"class{number % 2}" / f"v_{number:03d}.npy", values.astype(np.float32))
    return path


KILL = """
import itertools, os, sys
from flows.exchange import importing
import store
moment, at, folder, url = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
importing.COMMIT_EVERY_S = 0.0
owner, name = {"write": (store, "write_batch"), "flush": (store.Writer, "flush"),
               "append": (store.Writer, "append")}[moment]
real, count = getattr(owner, name), itertools.count(1)
def killing(*words, **more):
    number = next(count)
    result = real(*words, **more)
    if number == at:
        os.kill(os.getpid(), 9)
    return result
setattr(owner, name, killing)
importing.import_clips(folder, importing.Rules(store=url, steps=4, batch=4))
"""


def packed_into(kind: str, folder: Path) -> Path:
    """The arrays of a folder in one file."""
    arrays = {
        path.relative_to(folder).with_suffix("").as_posix(): np.load(path)
        for path in sorted(folder.rglob("*.npy"))
    }
    path = folder.with_suffix(f".{kind}")
    if kind == "h5":
        with h5py.File(path, "w") as file:
            for name, values in arrays.items():
                file.create_dataset(name, data=values, chunks=True, compression="gzip")
        return path
    import pyarrow.parquet

    columns = {"id": list(arrays), "embedding": [values.tolist() for values in arrays.values()]}
    columns["label"] = [name.split("/")[0] for name in arrays]
    kind_of = pyarrow.list_(pyarrow.list_(pyarrow.float32()))
    table = pyarrow.table({**columns, "embedding": pyarrow.array(columns["embedding"], kind_of)})
    pyarrow.parquet.write_table(table, path, row_group_size=7)
    return path


@pytest.mark.parametrize(
    ("kind", "moment", "at"),
    [
        ("npy", "append", 1),
        ("parquet", "write", 5),
        *(
            pytest.param(*case, marks=pytest.mark.long)
            for case in (
                *(("h5", *when) for when in (("append", 1), ("write", 5), ("flush", 9))),
                ("npy", "write", 5),
                ("npy", "flush", 9),
                ("parquet", "append", 1),
                ("parquet", "flush", 9),
            )
        ),
    ],
)
def test_an_import_that_is_killed_goes_on_to_the_same_store(
    tmp_path: Path, kind: str, moment: str, at: int
):
    folder, url = folder_of(tmp_path / "in"), str(tmp_path / "clips.zarr")
    folder = folder if kind == "npy" else packed_into(kind, folder)
    words = [sys.executable, "-c", KILL, moment, str(at), str(folder), url]
    done = subprocess.run(words, cwd=Path(__file__).parents[2], capture_output=True, check=False)
    assert done.returncode == -9, done.stderr.decode()
    result = imported(folder, url, steps=4, batch=4)
    assert result.ready + result.kept == 24
    assert (result.kept > 0) == (moment != "append")
    imported(folder, tmp_path / "whole.zarr", steps=4, batch=4)
    assert contents(url) == contents(str(tmp_path / "whole.zarr"))
    assert store.verify(url).ok
    again = imported(folder, url, steps=4, batch=4)
    assert (again.ready, again.kept) == (0, 24)


def test_an_export_that_was_stopped_goes_on(tmp_path: Path, monkeypatch, capsys):
    from flows.exchange import exporting

    monkeypatch.setattr(exporting, "UNIT", 4)
    url, out = made(tmp_path / "clips.zarr"), tmp_path / "out"
    export_store(url, str(out), format="hdf5")
    lines = (out / "manifest.jsonl").read_bytes().splitlines(keepends=True)
    (out / "manifest.jsonl").write_bytes(b"".join(lines[:9])[:-20])  # killed while it wrote
    result = export_store(url, str(out), format="hdf5")
    assert (result.written, result.kept) == (8, 7)  # row 7 has failed: whole units are 4 + 3 rows
    imported(out, tmp_path / "back.zarr")
    assert contents(url) == contents(str(tmp_path / "back.zarr"))
    for other, words in ((tmp_path, "holds something else"), (out, "another export (hdf5")):
        assert main(["export", "--store", url, "--format", "npy", "--out", str(other)]) == 1
        assert words in capsys.readouterr().err


def test_long_sequences_are_cut_or_split_and_labels_come_from_a_file(tmp_path: Path):
    values = np.arange(50, dtype=np.float32).reshape(10, 5)
    save(tmp_path / "in" / "a.npy", values)
    save(tmp_path / "in" / "b.npy", values[:2].T.copy().T)
    (tmp_path / "l.csv").write_text("id,label,split\na,jump,VAL\nb.npy,run,train\n")
    labels = str(tmp_path / "l.csv")
    imported(tmp_path / "in", tmp_path / "cut.zarr", steps=4, long="cut", labels=labels)
    cut = store.open(str(tmp_path / "cut.zarr"))
    np.testing.assert_array_equal(cut.load([0]).features[0], values[:4])
    assert cut.table()[["label", "split"]].values.tolist() == [["jump", "val"], ["run", "train"]]
    imported(tmp_path / "in", tmp_path / "split.zarr", steps=4, long="split", labels=labels)
    split = store.open(str(tmp_path / "split.zarr"))
    assert split.table()["video_id"].tolist() == [
        *("a#steps=0,4", "a#steps=4,8", "a#steps=8,10", "b"),
    ]
    loaded = split.load([0, 1, 2])
    np.testing.assert_array_equal(loaded.features[loaded.mask], values)
    assert split.steps_of([2])[0].tolist() == [[8, 9, -1, -1]]
    assert store.verify(str(tmp_path / "split.zarr")).ok


def test_features_and_predictions_need_what_computed_them(tmp_path: Path, capsys):
    url = str(tmp_path / "clips.zarr")
    words = ["--from", str(folder_of(tmp_path / "in")), "--store", url, "--source", "i3d"]
    assert main(["import", *words, "--sampling", "stride=16"]) == 0
    assert store.open(url).spec["sampling"]["rule"] == "stride"
    assert main(["import", *words, "--sampling", "uniform=3"]) == 1
    assert "sampling 'uniform' takes no number: write just uniform" in capsys.readouterr().err
    assert main(["show", "--store", url]) == 0
    assert "imported from i3d" in capsys.readouterr().out
    (tmp_path / "a.mp4").write_bytes(b"a clip")
    assert main(["features", "--videos", str(tmp_path), "--store", url, "--dry-run"]) == 1
    error = capsys.readouterr().err.strip()
    assert "imported features (source i3d)" in error.splitlines()[-1]
    from pipeline.features.stage import stored_stage
    from pipeline.spec import Spec

    with pytest.raises(ValueError, match=r"r has imported features .*extract the clips anew"):
        stored_stage(Spec.from_dict(store.open(url).spec), {}, owner="r")
    own = made(tmp_path / "own.zarr")
    assert main(["import", *words[:2], "--store", own]) == 1
    assert "computed here" in capsys.readouterr().err


def test_a_source_that_cannot_be_used_is_one_sentence(tmp_path: Path, capsys):
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "x.pkl").write_bytes(pickle.dumps([1]))
    (tmp_path / "x.h5").write_bytes(b"no HDF5")
    (tmp_path / "x.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "x.tar").write_bytes(b"no tar" * 200)
    evil = tmp_path / "evil"
    evil.mkdir()
    line = {"id": "a", "file": "../p/x.pkl"}
    (evil / "manifest.jsonl").write_text(json.dumps(line) + "\n")
    (tmp_path / "none").mkdir()
    for name, words in {
        "p": "is a pickle", "p/x.pkl": "is a pickle", "x.h5": "cannot be read",
        "x.parquet": "cannot be read", "x.tar": "cannot be read", "evil": "outside of the folder",
        "none": "holds no .npy", "nowhere": "no file or folder",
    }.items():  # fmt: skip
        url = str(tmp_path / "clips.zarr")
        assert main(["import", "--from", str(tmp_path / name), "--store", url]) == 1, name
        error = capsys.readouterr().err.strip()
        assert words in error, (name, error)
        assert "\n" not in error
        assert not Path(url).exists()
