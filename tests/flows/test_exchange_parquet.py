"""Pages of Parquet: any reader reads them, and what is not as we write it is read by Arrow or refused."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.exchange.formats import _arrow_schema
from flows.exchange.parquet import ParquetRows
from flows.exchange.parquet_pages import PageWriter, find_pages
from flows.exchange.raw import RawFile

TEXTS = ("id", "label")


def schema_of(values: np.ndarray) -> pyarrow.Schema:
    schema = _arrow_schema(values)
    return pyarrow.schema([f for f in schema if f.name not in ("split", "group")])


def written(path: Path, groups: list[list[np.ndarray]]) -> Path:
    with path.open("wb") as file:
        writer = PageWriter(file, schema_of(groups[0][0]), TEXTS)
        for group in groups:
            lengths = [len(each) for each in group]
            writer.write(
                [("id", [f"c{n} 🎬" for n in lengths]), ("label", [""] * len(group))],
                group,
                [np.arange(n, dtype=np.float32) / 3 for n in lengths],
                [np.arange(n, dtype=np.int32) * 2 for n in lengths],
            )
        writer.close()
    return path


def arrays(lengths: list[int], width: int, dtype: str) -> list[np.ndarray]:
    random = np.random.default_rng(width)
    return [(random.random((n, width)) * 200).astype(dtype) for n in lengths]


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.lists(st.integers(0, 130), min_size=1, max_size=5), min_size=1, max_size=3),
    width=st.sampled_from([1, 2, 7, 64, 129]),
    dtype=st.sampled_from(["float16", "float32", "uint8"]),
)
def test_arrow_reads_what_was_written(tmp_path_factory, lengths, width: int, dtype: str):
    groups = [arrays(each, width, dtype) for each in lengths]
    path = written(tmp_path_factory.mktemp("pages") / "x.parquet", groups)
    table = pyarrow.parquet.read_table(path)
    table.validate(full=True)
    kind = pyarrow.list_(pyarrow.from_numpy_dtype(np.dtype(dtype)), width)
    assert table.schema.field("embedding").type == pyarrow.list_(kind)
    assert table.schema.names == ["id", "label", "embedding", "times", "frames"]
    every = [each for group in groups for each in group]
    for i, values in enumerate(every):
        assert table["id"][i].as_py() == f"c{len(values)} 🎬"
        found = table["embedding"][i].as_py()
        np.testing.assert_array_equal(np.array(found, dtype).reshape(-1, width), values)
        assert table["frames"][i].as_py() == [2 * n for n in range(len(values))]
        assert len(table["times"][i].as_py()) == len(values)
    assert pyarrow.parquet.ParquetFile(path).metadata.num_row_groups == len(groups)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_pages_are_found_where_they_are_and_read_as_arrow_does(tmp_path: Path, dtype: str):
    groups = [arrays([3, 40, 1], 33, dtype), arrays([5], 33, dtype)]
    ours = written(tmp_path / "ours.parquet", groups)
    theirs = tmp_path / "theirs.parquet"
    pyarrow.parquet.write_table(pyarrow.parquet.read_table(ours), theirs, row_group_size=3)
    with closing(RawFile(ours)) as raw:
        assert find_pages(pyarrow.parquet.ParquetFile(ours), 0, raw) is not None
    with closing(RawFile(theirs)) as raw:
        assert find_pages(pyarrow.parquet.ParquetFile(theirs), 0, raw) is None
    for path in (ours, theirs):
        rows = ParquetRows(path)
        for i in (3, 0, 2, 1):
            values = [each for group in groups for each in group][i]
            foreign = rows.open(i, (), transpose=False)
            assert foreign.shape == values.shape
            np.testing.assert_array_equal(foreign.read(0, len(values)), values)
        rows.close()


def test_a_page_that_is_damaged_is_not_taken_for_another(tmp_path: Path):
    path = written(tmp_path / "x.parquet", [arrays([2, 3], 5, "float16")])
    whole = path.read_bytes()
    with closing(RawFile(path)) as raw:
        pages = find_pages(pyarrow.parquet.ParquetFile(path), 0, raw)
    begin = pyarrow.parquet.ParquetFile(path).metadata.row_group(0).column(2).data_page_offset
    for at in range(begin, pages[0].offset):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        with closing(RawFile(path)) as raw:
            assert find_pages(pyarrow.parquet.ParquetFile(path), 0, raw) is None
