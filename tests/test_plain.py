"""JSON that every parser reads, and tables that survive any name and run nothing in a spreadsheet."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.plain import escaped, json_text, read_table, unescaped, write_rows, write_table

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


def test_rows_are_escaped_and_quoted_alike(tmp_path):
    write_rows(tmp_path / "rows.csv", [["clip", "value"], *([name, -1.5] for name in NAMES)])
    again = read_table(tmp_path / "rows.csv")
    assert again["clip"].tolist() == NAMES
    assert again["value"].tolist() == [-1.5] * len(NAMES)
