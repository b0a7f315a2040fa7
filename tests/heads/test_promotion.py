"""A new head is promoted by a paired interval over groups, not by a point."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.heads.promotion import judge, judge_by_baselines


def hits(rights: int, n: int = 200) -> np.ndarray:
    return np.arange(n) % n < rights


LABELS = np.array(["a", "b"], dtype=object)[np.arange(200) % 2]
GROUPS = np.array([f"g{i % 20}" for i in range(200)], dtype=object)


def test_without_an_accepted_head_the_first_is_promoted():
    verdict = judge(hits(10), None, LABELS, GROUPS, 0.0)
    assert verdict.promoted
    assert (verdict.difference, verdict.low) == (None, None)


def test_equal_heads_are_not_worse():
    assert judge(hits(150), hits(150), LABELS, GROUPS, 0.0).promoted


def test_a_better_point_with_an_interval_that_reaches_below_is_refused():
    rng = np.random.default_rng(0)
    new, old = rng.random(200) < 0.72, rng.random(200) < 0.70
    verdict = judge(new, old, LABELS, GROUPS, 0.0)
    assert verdict.low is not None
    assert verdict.low < 0 < verdict.high
    assert not verdict.promoted
    assert judge(new, old, LABELS, GROUPS, 0.5).promoted


def test_a_head_that_is_worse_in_every_group_is_refused():
    worse = hits(150) & (np.arange(200) % 10 != 0)
    verdict = judge(worse, hits(150), LABELS, GROUPS, 0.01)
    assert not verdict.promoted
    assert "below -0.010" in verdict.why


@pytest.mark.parametrize(("threshold", "promoted"), [(0.0, False), (0.1, True)])
def test_with_few_groups_there_is_no_interval_and_it_says_so(threshold, promoted):
    few = np.array([f"g{i % 4}" for i in range(200)], dtype=object)
    verdict = judge(hits(145), hits(150), LABELS, few, threshold)
    assert (verdict.low, verdict.high) == (None, None)
    assert verdict.promoted is promoted
    assert "no interval over 4 groups" in verdict.why


def test_every_class_has_its_line():
    new = hits(200) & (LABELS == "a")
    lines = {line["class"]: line for line in judge(new, hits(100), LABELS, GROUPS, 0.0).classes}
    assert lines["a"] | {"class": "a"} == {
        "class": "a", "clips": 100, "recall": 1.0, "accepted_recall": 0.5, "difference": 0.5,
    }  # fmt: skip
    assert lines["b"]["recall"] == 0


@pytest.mark.parametrize(("rights", "promoted"), [(150, True), (148, True), (140, False)])
def test_beside_its_baselines_a_head_may_not_be_worse_than_the_best_of_them(rights, promoted):
    baselines = {"majority": 0.5, "frame_average": 0.75}
    verdict = judge_by_baselines(hits(rights), LABELS, GROUPS, baselines, 0.01)
    assert verdict.promoted is promoted
    assert "frame_average (0.750)" in verdict.why
    assert verdict.accepted_top1 is None
