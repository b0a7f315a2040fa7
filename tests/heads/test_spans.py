"""Parts of one file in splits: tries to tear a file apart, and must not succeed."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.heads.holdout import Holdout
from pipeline.heads.source import READY, contents, group_names, shared_contents
from pipeline.heads.spans import fragments, joined_parts, overlapping
from pipeline.heads.splits import PARTS, make_folds, make_split, resolve_way, split_notes
from pipeline.spans import WHOLE, Span


def table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Ready clips: `file`, `span`, and optionally label, group (default: the file's) and sha256."""
    made = []
    for number, row in enumerate(rows):
        span, file = row.get("span", WHOLE), row["file"]
        made.append(
            {
                "video_id": span.named(file),
                "file": "" if span.whole else file,
                "label": row.get("label", "ab"[number % 2]),
                "split": row.get("split", ""),
                "group": row.get("group", file),
                "sha256": row.get("sha256", f"hash of {file}"),
                "digest": number + 1,
                "status": READY,
                **span.columns,
            }
        )
    return pd.DataFrame(made).rename_axis("row")


def parts_of(split: Any) -> dict[int, str]:
    return {row: name for name in PARTS for row in getattr(split, name).tolist()}


files = st.lists(
    st.tuples(
        st.integers(2, 6),  # parts
        st.sampled_from(["own", "copy of the first"]),
        st.booleans(),  # beside the whole file
    ),
    min_size=6,
    max_size=10,
)


@given(files, st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_no_way_to_split_by_groups_tears_a_file_apart(
    drawn: list[tuple[int, str, bool]], seed: int
) -> None:
    rows = []
    for number, (count, bytes_of, whole) in enumerate(drawn):
        sha = "first" if bytes_of != "own" and number else f"sha {number}"
        sha = "first" if number == 0 else sha
        spans = [Span(float(i), i + 1.0) for i in range(count)] + [WHOLE] * whole
        rows += [{"file": f"{number}.mp4", "span": span, "sha256": sha} for span in spans]
    clips = table(rows)
    assert resolve_way(clips, "auto") in ("grouped", "stratified")
    if len(set(group_names(clips))) < 4:
        return
    made = [make_split(clips, seed=seed, how="grouped")]
    made += make_folds(clips, folds=3, seed=seed)
    made += make_folds(clips, how="leave_one_group_out", seed=seed)
    for split in made:
        where = pd.Series(parts_of(split))
        assert (where.groupby(clips["sha256"].loc[where.index]).nunique() == 1).all()


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 20), st.integers(1, 6), st.sampled_from("ab")),
        min_size=24,
        max_size=40,
        unique_by=lambda part: part[:3],
    ),
    st.integers(0, 3),
)
@settings(max_examples=40, deadline=None)
def test_parts_that_overlap_are_never_on_two_sides_even_where_files_may_be(
    drawn: list[tuple[int, int, int, str]], seed: int
) -> None:
    rows = [
        {"file": f"{file}.mp4", "span": Span(float(at), float(at + long)), "group": f"{file} {at}"}
        for file, at, long, _ in drawn
    ]
    clips = table(rows).assign(label=[label for *_, label in drawn])
    try:
        split = make_split(clips, how="stratified", seed=seed)
    except ValueError:  # everything overlaps
        return
    where = parts_of(split)
    for (i, one), (k, other) in itertools.combinations(enumerate(drawn), 2):
        meet = one[0] == other[0] and one[1] < sum(other[1:3]) and other[1] < sum(one[1:3])
        if meet:
            assert where[i] == where[k]


def test_named_groups_of_one_file_are_kept_apart_unless_they_share_frames() -> None:
    spans = [Span(0.0, 5.0), Span(5.0, 9.0), Span(8.0, 12.0), Span(20.0, 30.0)]
    named = [{"file": "a.mp4", "span": s, "group": g} for s, g in zip(spans, "pqrs", strict=True)]
    assert group_names(table(named)).tolist() == ["p", "q", "q", "s"]
    # The file as a whole has every part's frames; a part in frames may have any.
    whole = {"file": "a.mp4", "group": "all"}
    assert set(group_names(table([*named, whole]))) == {"all"}
    frames = {"file": "a.mp4", "span": Span(None, None, 0, 9), "group": "frames"}
    assert set(group_names(table([*named, frames]))) == {"frames"}


def test_parts_of_copies_are_one_group_by_their_hash() -> None:
    rows = [
        {"file": "a.mp4", "span": Span(0.0, 1.0), "sha256": "s"},
        {"file": "b.mp4", "span": Span(5.0, 6.0), "sha256": "s"},
        {"file": "c.mp4", "span": Span(0.0, 1.0), "sha256": "t"},
    ]
    assert group_names(table(rows)).tolist() == ["a.mp4", "a.mp4", "c.mp4"]


def test_the_same_bytes_are_the_same_part_of_the_same_file() -> None:
    one, two = Span(0.0, 1.0), Span(1.0, 2.0)
    clips = table([{"file": "a", "span": one}, {"file": "a", "span": two}, {"file": "a"}])
    assert fragments(clips).tolist() == ["t=0,1", "t=1,2", ""]
    keys = [f"sha256:hash of a{f}" for f in ("#t=0,1", "#t=1,2", "")]
    assert contents(clips).tolist() == keys
    assert len(set(shared_contents(clips))) == 1
    assert len(set(shared_contents(clips.iloc[:2]))) == 2
    assert overlapping(contents(clips), {keys[0]}).tolist() == [True, False, True]
    assert joined_parts(np.array(["", "x", "x"], dtype=object)).tolist() == ["", "x", "x"]
    old = clips.drop(columns=["file", "start_s", "end_s", "start_frame", "end_frame"])
    assert set(contents(old)) == {"sha256:hash of a"}


def test_a_test_set_keeps_out_whatever_shares_frames_or_a_group_with_it() -> None:
    rows = [
        {"file": "a", "span": Span(0.0, 5.0)},
        {"file": "a", "span": Span(9.0, 12.0)},
        {"file": "b", "span": Span(0.0, 5.0)},
    ]
    frozen = Holdout.of("test", table(rows[:1]))
    again = Holdout.from_dict("test", frozen.to_dict())
    assert again.kept_out(table(rows)).tolist() == [True, True, False]
    loose = Holdout.of("test", table(rows[:1]), whole_groups=False)
    later = [{"file": "a", "span": Span(4.0, 6.0)}, {"file": "a", "span": Span(5.0, 6.0)}]
    assert loose.kept_out(table(later)).tolist() == [True, False]
    assert loose.kept_out(table([{"file": "x", "sha256": "hash of a"}])).tolist() == [True]


def test_a_stratified_split_of_parts_says_what_it_does() -> None:
    rows = [{"file": f"{i % 2}.mp4", "span": Span(float(i), i + 1.0)} for i in range(12)]
    clips = table(rows).assign(label=["a", "a", "b", "b"] * 3)
    assert resolve_way(clips, "auto") == "stratified"  # two files cannot make three parts
    (note,) = split_notes(clips, "auto")
    assert "2 files have several clips" in note
    with pytest.raises(ValueError, match="need at least 3 groups"):
        make_split(clips, how="grouped")
