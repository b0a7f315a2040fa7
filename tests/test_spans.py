"""A span of a file: what its bounds mean, and its text."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.spans import WHOLE, Span, read_seconds, split_fragment

TIMES = np.arange(10) / 10


@pytest.mark.parametrize(
    ("bounds", "fragment"),
    [
        (("12.5", "17"), "t=12.5,17"),
        (("0.1", ""), "t=0.1"),
        (("", "3"), "t=0,3"),
        (("1:02.5", "0:01:03"), "t=62.5,63"),
        (("1e-7", "100000000000"), "t=0.0000001,100000000000"),
        (("0", ""), ""),
        (("-0.0", "2"), "t=0,2"),
        (("", "", "12", "40"), "frames=12,40"),
        (("", "", "12", ""), "frames=12"),
        (("", "", "", "40"), "frames=0,40"),
        ((float("nan"), float("nan"), -1, -1), ""),
    ],
)
def test_bounds_have_one_text_that_gives_them_back(bounds: tuple[str, ...], fragment: str) -> None:
    span = Span.of(*bounds)
    assert span.fragment == fragment
    assert split_fragment(span.named("a b/50%.mp4")) == ("a b/50%.mp4", span)
    assert Span.of(*span.columns.values()) == span


@pytest.mark.parametrize(
    "bounds",
    [
        ("nan", "2"), ("1", "inf"), ("-1", "2"), ("2", "2"), ("3", "2"), ("0", "0"), ("", "0"),
        ("1:75", "200"), ("1:60:00", ""), ("x", ""), ("1,5", ""), ("", "", "1.5", ""),
        ("", "", "3", "3"), ("", "", "-2", "3"), ("1", "2", "3", "4"), ("1", "", "", "4"),
        ("", "", "", "99999999999"), ("", "", "inf", ""), ("1:2:3:4", ""), ("1e400", ""),
    ],
)  # fmt: skip
def test_bounds_that_hold_nothing_are_refused(bounds: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError):
        Span.of(*bounds)


def test_a_bound_on_a_frame_begins_with_it_and_ends_before_it() -> None:
    slack = 1e-6
    assert Span(0.3, 0.6).frames(TIMES, slack) == (3, 6)
    # 0.1 · 3 is 0.30000000000000004, and the time of the same frame may be 0.3.
    assert Span(0.1 * 3, 0.1 * 6).frames(TIMES, slack) == (3, 6)
    assert Span(0.31, 0.61).frames(TIMES, slack) == (4, 7)
    assert Span(0.31, 0.39).frames(TIMES, slack) == (4, 4)
    assert Span(0.9, None).frames(TIMES, slack) == (9, 10)
    assert Span(5.0, 6.0).frames(TIMES, slack) == (10, 10)
    assert Span(start_frame=9, end_frame=99).frames(TIMES, slack) == (9, 10)
    assert Span(start_frame=50, end_frame=99).frames(TIMES, slack) == (10, 10)
    assert WHOLE.frames(TIMES, slack) == (0, 10)


@given(st.lists(st.floats(0, 2), min_size=1, max_size=8, unique=True))
def test_spans_that_follow_each_other_share_no_frame_and_lose_none(cuts: list[float]) -> None:
    edges = [0.0, *sorted(c for c in cuts if c > 0), 3.0]
    seen = [
        frame
        for start, end in pairwise(edges)
        for frame in range(*Span(start, end).frames(TIMES, 1e-6))
    ]
    assert seen == list(range(10))


def test_only_a_fragment_of_time_or_frames_is_taken_for_one() -> None:
    for name in ("a.mp4", "a#b.mp4", "a.mp4#x=1", "#t=1.mp4/b", "a#t=1,2.mp4/c", "a#t=", "a#t=,"):
        assert split_fragment(name) == (name, WHOLE)
    assert split_fragment("a#t=1,2.mp4#t=3") == ("a#t=1,2.mp4", Span(3.0))
    assert split_fragment("a.mp4#t=npt:1:00,90") == ("a.mp4", Span(60.0, 90.0))
    with pytest.raises(ConfigError, match="empty"):
        split_fragment("a.mp4#t=5,1")


def test_seconds() -> None:
    assert read_seconds("75:30") == 4530
    assert read_seconds(2) == 2.0
    for wrong in (True, None, "", "1:", ":1", "1:2:", "१:00x"):
        with pytest.raises(ConfigError):
            read_seconds(wrong)
