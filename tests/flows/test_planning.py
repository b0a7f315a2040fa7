"""What a run decides to do: every state of a row against every state of its clip."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.extract.plan import check_retry, follow_catalog, make_plan
from pipeline.errors import ConfigError
from pipeline.features.catalog.table import ABSENT, UNKNOWN
from pipeline.features.reasons import FAILURES, WARNINGS
from store import FAILED, GONE, PENDING, READY


def catalog(**changes) -> pd.DataFrame:
    """Three clips, a to c, of 100 bytes at time 5."""
    frame = pd.DataFrame(
        {
            "video_id": ["a", "b", "c"],
            "path": ["/a", "/b", "/c"],
            "label": ["x", "y", "x"],
            "split": "",
            "group": "",
            "file": "",
            "size_bytes": 100,
            "mtime_ns": 5,
            "start_s": np.nan,
            "end_s": np.nan,
            "start_frame": -1,
            "end_frame": -1,
        }
    )
    return frame.assign(**changes)


def table(**changes) -> pd.DataFrame:
    """A store of these clips, all ready."""
    frame = catalog().drop(columns="path")
    return frame.assign(status=READY, reason="", sha256="s", frames_decoded=9).assign(**changes)


@pytest.mark.parametrize(
    ("was", "now", "outcome"),
    [
        # (status, reason) of row b, what its clip is now → what the run does with it
        ((READY, ""), "same", "keep"),
        ((READY, "fewer_frames"), "same", "keep"),
        ((READY, ""), "touched", "keep"),
        ((READY, ""), "changed", "make"),
        ((READY, ""), "other bytes, same size", "make"),
        ((READY, ""), "left", "gone"),
        ((READY, ""), "not there", "gone"),
        ((READY, ""), "touched, cannot be read", "keep"),
        ((PENDING, ""), "not there", "make"),
        ((FAILED, "missing"), "not there", "make"),
        ((GONE, ""), "not there", "keep"),
        ((READY, ""), "not to be asked", "keep"),
        ((GONE, ""), "not to be asked", "keep"),
        ((PENDING, ""), "not to be asked", "make"),
        ((FAILED, "unreachable"), "not to be asked", "make"),
        ((PENDING, ""), "same", "make"),
        ((PENDING, ""), "left", "gone"),
        *(((FAILED, code), "same", "make") for code, r in FAILURES.items() if r.retried),
        *(((FAILED, code), "same", "keep") for code, r in FAILURES.items() if not r.retried),
        ((FAILED, "unreadable"), "changed", "make"),
        ((FAILED, "unreadable"), "left", "gone"),
        ((GONE, ""), "left", "keep"),
        ((GONE, ""), "same", "returned"),
        ((GONE, "fewer_frames"), "same", "returned"),
        ((GONE, ""), "touched", "returned"),
        ((GONE, ""), "changed", "make"),
        ((GONE, "unreadable"), "same", "make"),
    ],
)
def test_every_row_ends_where_the_contract_says(was, now, outcome):
    rows = table()
    rows.loc[1, ["status", "reason"]] = was
    clips = catalog()
    if now == "left":
        clips = clips.drop(index=1).reset_index(drop=True)
    elif now == "not to be asked":
        clips.loc[1, ["size_bytes", "mtime_ns"]] = UNKNOWN
    elif now == "changed":
        clips.loc[1, ["size_bytes", "mtime_ns"]] = 101, 6
    elif now == "not there":
        clips.loc[1, ["size_bytes", "mtime_ns"]] = ABSENT
    elif now in ("touched", "touched, cannot be read", "other bytes, same size"):
        clips.loc[1, "mtime_ns"] = 6
    same = {"touched": True, "touched, cannot be read": None}.get(now, False)
    plan = make_plan(clips, rows, same_bytes=lambda path, sha256: same)
    found = {
        "make": plan.make.tolist(),
        "gone": plan.gone.tolist(),
        "returned": plan.returned.tolist(),
    }
    assert found == {name: [1] if name == outcome else [] for name in found}
    assert not len(plan.new)
    assert (1 in plan.unknown) == (now in ("not to be asked", "touched, cannot be read"))
    if now in ("not to be asked", "not there", "touched, cannot be read"):
        assert follow_catalog(clips, rows, plan) == {}


@pytest.mark.parametrize("reason", [*FAILURES, "all"])
def test_a_failed_clip_is_tried_again_when_its_reason_or_all_is_asked_for(reason):
    rows = table()
    rows.loc[1, ["status", "reason"]] = FAILED, reason if reason != "all" else "timed_out"
    assert make_plan(catalog(), rows, retry=[reason]).make.tolist() == [1]


@pytest.mark.parametrize("reason", list(WARNINGS))
def test_a_ready_clip_with_a_warning_is_made_anew_when_the_warning_is_asked_for_by_name(reason):
    rows = table()
    rows.loc[1, "reason"] = reason
    assert make_plan(catalog(), rows, retry=[reason]).make.tolist() == [1]
    assert make_plan(catalog(), rows, retry=["all"]).make.tolist() == []


def test_a_reason_that_no_clip_can_have_is_refused_with_the_nearest():
    check_retry(["all", "timed_out", "fewer_frames"])
    with pytest.raises(ConfigError, match="did you mean timed_out"):
        check_retry(["timeout"])


def test_a_row_that_changed_outside_a_narrowed_run_keeps_what_shows_the_change():
    clips = catalog(size_bytes=[100, 101, 100], mtime_ns=[5, 6, 7], label=["x", "y", "z"])
    wanted = np.array([True, False, True])
    plan = make_plan(clips, table(), wanted=wanted, same_bytes=lambda path, sha256: True)
    assert not len(plan)
    followed = {
        name: rows.tolist() for name, (rows, _) in follow_catalog(clips, table(), plan).items()
    }
    assert followed == {"label": [2], "mtime_ns": [2]}  # not row 1's: it is stale
    assert make_plan(clips, table()).make.tolist() == [1, 2]


def test_a_size_lost_to_damage_is_looked_up_by_the_bytes():
    lost = table(size_bytes=-1, mtime_ns=-1)
    assert not len(make_plan(catalog(), lost, same_bytes=lambda path, sha256: True))
    assert len(make_plan(catalog(), lost, same_bytes=lambda path, sha256: False)) == 3


@given(
    status=st.lists(st.sampled_from([PENDING, READY, FAILED, GONE]), min_size=3, max_size=3),
    present=st.lists(st.booleans(), min_size=3, max_size=3),
    wanted=st.booleans(),
)
def test_after_the_plan_every_clip_is_made_or_ready_or_failed_and_every_other_row_gone(
    status, present, wanted
):
    rows = table(status=status, reason=["unreadable" if s == FAILED else "" for s in status])
    clips = catalog()[present].reset_index(drop=True)
    plan = make_plan(clips, rows, wanted=np.full(len(clips), wanted))
    after = rows["status"].to_numpy().copy()
    after[plan.gone] = GONE
    after[plan.returned] = READY
    after[plan.make] = READY
    assert (after[~np.array(present)] == GONE).all()
    if wanted:
        assert np.isin(after[present], [READY, FAILED]).all()
    else:
        assert not len(plan)


@given(
    status=st.lists(st.sampled_from([PENDING, READY, FAILED, GONE]), min_size=3, max_size=3),
    reason=st.lists(st.sampled_from(["", "fewer_frames", "unreadable"]), min_size=3, max_size=3),
    seen=st.lists(st.sampled_from(["there", "absent", "unknown"]), min_size=3, max_size=3),
    time=st.lists(st.sampled_from([5, 6]), min_size=3, max_size=3),
    size=st.lists(st.sampled_from([100, 101]), min_size=3, max_size=3),
    stored_size=st.sampled_from([-1, 100]),
    same=st.sampled_from([True, False, None]),
    retry=st.sampled_from([[], ["all"], ["fewer_frames"]]),
    wanted=st.booleans(),
)
def test_features_are_taken_only_from_rows_whose_clip_was_seen_to_be_another_or_was_asked_for(
    status, reason, seen, time, size, stored_size, same, retry, wanted
):
    rows = table(status=status, reason=reason, size_bytes=stored_size)
    clips = catalog(size_bytes=size, mtime_ns=time)
    for row, what in enumerate(seen):
        if what != "there":
            clips.loc[row, ["size_bytes", "mtime_ns"]] = ABSENT if what == "absent" else UNKNOWN
    plan = make_plan(
        clips, rows, wanted=np.full(3, wanted), retry=retry, same_bytes=lambda path, sha256: same
    )
    for row in plan.make:
        if status[row] not in (READY, GONE) or reason[row] == "unreadable":
            continue
        assert seen[row] == "there"
        other_size = stored_size >= 0 and size[row] != stored_size
        other_bytes = same is False and (time[row] != 5 or stored_size < 0)
        asked = retry == ["fewer_frames"] and reason[row] == "fewer_frames"
        assert other_size or other_bytes or asked, row
    assert not np.isin(plan.gone, plan.make).any()
    assert not np.isin(plan.returned, np.union1d(plan.make, plan.gone)).any()
    taken = {name: set(at) for name, (at, _) in follow_catalog(clips, rows, plan).items()}
    hidden = {row for row in range(3) if seen[row] != "there"}
    assert not hidden & (taken.get("size_bytes", set()) | taken.get("mtime_ns", set()))
