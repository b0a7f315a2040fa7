"""What a terminal shows of long tables, and which command it suggests."""

from __future__ import annotations

import pytest

from flows.cli.features import print_summary
from flows.cli.terminal import print_table
from flows.extract.summary import Summary


def test_a_table_with_a_file_of_its_own_shows_forty_rows_and_counts_the_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_table("t", ("label",), [(f"row-{i}",) for i in range(43)], rest="all.csv")
    shown = capsys.readouterr().out
    assert "row-39" in shown
    assert "row-40" not in shown
    assert "and 3 more in all.csv" in shown
    print_table("t", ("label",), [(f"row-{i}",) for i in range(40)], rest="all.csv")
    assert "more in" not in capsys.readouterr().out
    print_table("t", ("label",), [(f"row-{i}",) for i in range(43)])
    assert "row-42" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("files", "classes", "words"),
    [
        (0, 2, "train --store a.zarr --head gru"),
        (3, 2, "train --store a.zarr --head gru"),
        (3, 0, "train --store a.zarr --head segmenter --annotations FILE"),
        (0, 0, "report --store a.zarr"),
    ],
)
def test_the_command_that_comes_next_can_do_with_the_labels_that_there_are(
    files: int, classes: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = Summary(
        store="a.zarr", outcome="done", clips=9, planned=9, ready=9, files=files, classes=classes
    )
    print_summary(summary)
    shown = capsys.readouterr().out
    assert f"next: pixels-once {words}\n" in shown
    assert ("clips are parts of 3 files" in shown) == bool(files)
