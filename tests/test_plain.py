"""JSON that every parser reads, and tables that survive any name and run nothing in a spreadsheet."""

from __future__ import annotations

import csv
import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.plain import (
    escaped,
    json_text,
    read_table,
    unescaped,
    write_json,
    write_rows,
    write_table,
)

NAMES = [
    "a",
    "=1+1",
    "'=x",
    "+a",
    "-5",
    "@b",
    "\ttab",
    "one\rtwo",
    "c\r\nd",
    'quo"te',
    "a,b",
    "NA",
    "$x$",
]


def refuse(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


def test_json_knows_no_nan_and_no_infinity():
    values = {
        "nan": float("nan"), "inf": np.float32("inf"), "array": np.array([1.0, np.nan]),
        "whole": np.int64(3), "yes": np.bool_(True), "none": None, "path": Path("a/b"), 3: (1, 2),
    }  # fmt: skip
    found = json.loads(json_text(values), parse_constant=refuse)
    assert found == {
        "nan": None, "inf": None, "array": [1.0, None],
        "whole": 3, "yes": True, "none": None, "path": "a/b", "3": [1, 2],
    }  # fmt: skip


@given(st.text(max_size=6))
def test_escaping_undoes_itself_and_leaves_no_cell_that_a_spreadsheet_runs(text):
    assert unescaped(escaped(text)) == text
    assert not escaped(text).startswith(("=", "+", "-", "@", "\t", "\r"))


@pytest.mark.parametrize("texts", [NAMES, NAMES[:6]], ids=["with a return", "without"])
def test_a_table_reads_back_as_it_was_whatever_its_names(texts, tmp_path):
    numbers = np.linspace(-1, 1, len(texts))
    frame = pd.DataFrame({"label": texts, "=score": numbers, "p:one\rtwo": numbers > 0})
    write_table(frame, tmp_path / "table.csv")
    pd.testing.assert_frame_equal(read_table(tmp_path / "table.csv"), frame, check_dtype=False)
    with (tmp_path / "table.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert len(rows) == len(texts) + 1
    assert not any(row[0].startswith(("=", "+", "-", "@")) for row in rows)
    square = pd.DataFrame(np.eye(len(texts)), index=texts, columns=texts)
    write_table(square, tmp_path / "square.csv", index=True)
    again = read_table(tmp_path / "square.csv", index_col=0)
    assert list(again.index) == list(again.columns) == texts


def test_a_text_that_is_missing_is_an_empty_cell(tmp_path: Path) -> None:
    write_table(pd.DataFrame([{"a": "x", "b": "y"}, {"a": "z"}]), tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_text() == "a,b\nx,y\nz,\n"


def test_rows_are_escaped_and_quoted_alike(tmp_path):
    write_rows(tmp_path / "rows.csv", [["clip", "value"], *([name, -1.5] for name in NAMES)])
    again = read_table(tmp_path / "rows.csv")
    assert again["clip"].tolist() == NAMES
    assert again["value"].tolist() == [-1.5] * len(NAMES)


def broken_rows():
    yield ["clip", "value"]
    raise OSError(28, "No space left on device")


def test_a_file_is_written_whole_or_stays_as_it_was(tmp_path):
    path = tmp_path / "rows.csv"
    write_rows(path, [["clip"], ["a"]])
    before = path.read_bytes()
    with pytest.raises(OSError, match="No space"):
        write_rows(path, broken_rows())
    with pytest.raises(UnicodeEncodeError):
        write_json(path, {"half a pair": "\ud800"})
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["rows.csv"]


def test_a_link_stays_one_and_a_pipe_is_written_to(tmp_path):
    (tmp_path / "real").mkdir()
    link, pipe = tmp_path / "link.csv", tmp_path / "pipe.csv"
    link.symlink_to("real/rows.csv")
    write_rows(link, [["a"]])
    assert link.is_symlink()
    assert (tmp_path / "real" / "rows.csv").read_bytes() == b"a\r\n"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as reading:
        said = reading.submit(pipe.read_bytes)
        write_rows(pipe, [["b"]])
        assert said.result(10) == b"b\r\n"
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_nothing_else_of_the_pipeline_writes_a_table_or_a_file_of_json():
    words = (".to_csv(", "csv.writer", "csv.DictWriter", "json.dump(", "write_text(json.dumps")
    found = [
        f"{path}: {word}"
        for path in (Path(__file__).parents[1] / "pipeline").rglob("*.py")
        for word in words
        if path.name != "plain.py" and word in path.read_text(encoding="utf-8")
    ]
    assert found == []
