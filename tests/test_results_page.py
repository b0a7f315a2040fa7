"""The table of streams and heads: what was run is told with its interval, what was not says so."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import results_table
from benchmarks.results_cells import CELLS, STREAM_SETS
from benchmarks.results_page import page
from benchmarks.results_streams import GUESS_S, Wanted, _places, remaining_s

TENNIS, FIGHT = STREAM_SETS


def cell(top1: float, **more: Any) -> dict[str, Any]:
    values = {"top1": top1, "interval": [top1 - 0.1, top1 + 0.1], "training_clips": 80}
    return values | {"seconds": 10.0} | more


def gap(difference: float, half: float = 0.05) -> dict[str, Any]:
    interval = {"low": difference - half, "high": difference + half}
    return {"difference": difference, "groups": 20, **interval}


@pytest.fixture
def figures() -> dict[str, Any]:
    check = {"name": "border", "sees": "one frame's border strip", "reason": "", "top1": 0.35}
    check |= {"interval": [0.3, 0.4], "lead": 0.2, "lead_interval": [0.1, 0.3], "clips": 168}
    unmade = {"name": "file", "sees": "all facts of the file", "reason": "unknown", "clips": 0}
    unmade |= dict.fromkeys(("top1", "interval", "lead", "lead_interval"))
    tennis = {
        "clips": 168,
        "groups": 28,
        "classes": ["a", "b"],
        "leaks": {"chance": 0.5, "majority": 0.5, "checks": [check, unmade]},
        "cells": {
            "inception_v3": {
                "frame_average": cell(0.37),
                "pyramid": cell(0.5, lead=gap(0.13), over_average=gap(0.13)),
            },
            "skeleton": {"pyramid": cell(0.73, lead=gap(0.36), over_average=gap(0.01))},
        },
    }
    return {"tennis": tennis}


def test_a_cell_that_was_not_run_says_so_and_no_other_does(figures) -> None:
    lines = results_table.stream_sections(figures)
    text = "\n".join(lines)
    assert "| InceptionV3 | 0.370 (0.27–0.47) | 0.500 (0.40–0.60) | not run |" in text
    assert "| skeleton | not run | 0.730 (0.63–0.83) | not run |" in text
    assert "**+0.360 (+0.31 to +0.41)**" in text  # beyond chance
    assert "+0.010 (-0.04 to +0.06)" in text
    assert "**+0.010" not in text
    assert "Fight" not in text
    assert "one frame's border strip 0.350 (0.30–0.40)" in text
    assert "all facts of the file not checked (unknown)" in text


def test_each_class_has_its_share_told_by_each_stream_that_has_one(figures) -> None:
    cells = figures["tennis"]["cells"]
    assert "| class |" not in "\n".join(results_table.stream_sections(figures))
    cells["inception_v3"]["frame_average"]["recall"] = {"a": 0.25, "b": 0.5}
    cells["skeleton"]["pyramid"]["recall"] = {"a": 0.7, "b": 1.0}
    text = "\n".join(results_table.stream_sections(figures))
    assert "| class | frame average of InceptionV3 | skeleton |" in text
    assert "| a | 0.25 | 0.70 |" in text
    assert "| b | 0.50 | 1.00 |" in text


def test_the_readmes_table_says_where_two_heads_are_not_told_apart(figures) -> None:
    cells = figures["tennis"]["cells"]
    cells["skeleton"]["frame_average"] = cell(0.72)
    lines = results_table.which_head(figures)
    assert "| 80 (tennis) | InceptionV3 | **pyramid** |" in "\n".join(lines)
    assert "| 80 (tennis) | skeleton | either (no significant difference) |" in "\n".join(lines)
    for share, clips in (("25%", 20), ("50%", 40)):
        for head, top1 in (("frame_average", 0.3), ("pyramid", 0.5)):
            cells["skeleton"][f"{head} {share}"] = cell(top1) | {"training_clips": clips}
        gap = {"difference": 0.2, "low": 0.1, "high": 0.3}
        cells["skeleton"][f"pyramid {share}"] |= {"over_average": gap}
    text = "\n".join(results_table.which_head(figures))
    assert "| 20 to 40 (tennis) | skeleton | **pyramid** |" in text  # the same of both
    assert "| 80 (tennis) | skeleton | either (no significant difference) |" in text


def test_the_time_left_is_by_what_cells_took_before_at_the_pace_of_now(figures) -> None:
    wanted = Wanted(work=None, sets=("tennis",), streams=("inception_v3",))  # type: ignore[arg-type]
    places = _places(wanted)
    assert [place[2].solved for place in places] == sorted((c.solved for c in CELLS), reverse=True)
    assert places[0][2].name == "frame_average"
    assert remaining_s(places[:2], figures, []) == 20
    assert remaining_s(places[:2], figures, [2.0, 3.0, 1.0]) == 40
    unknown = [place for place in places if place[2].name == "tcn"]
    assert remaining_s(unknown, figures, []) == GUESS_S["gradient"]


def test_the_page_in_the_repository_is_what_the_figures_say() -> None:
    from benchmarks.results_page import PAGE

    assert PAGE.read_text(encoding="utf-8") == page()
