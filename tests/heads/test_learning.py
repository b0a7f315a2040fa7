"""Learning curves over groups, and steps in random order: what more clips and their order bring."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from flows.cli import compare
from pipeline.errors import ConfigError
from pipeline.heads.clips import load_clips
from pipeline.heads.compare import leaderboards, paired_difference
from pipeline.heads.config import TrainConfig
from pipeline.heads.learning import curves_among
from pipeline.heads.plan import make_splits, plan_training
from pipeline.heads.shuffling import with_steps_shuffled
from pipeline.heads.training import train
from tests.heads.sources import rising_or_falling

DRAWS = False
CONFIG = TrainConfig(head="pyramid", split="kfold", folds=2, baselines=False)


@pytest.fixture(scope="module")
def clips():
    return load_clips(rising_or_falling(clips=96, groups=24))


@pytest.fixture(scope="module")
def runs(clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("learning")
    for name, more in {
        "all": {},
        "half": {"train_groups": 0.5},
        "shuffled": {"shuffle_steps": True},
    }.items():
        train(clips, dataclasses.replace(CONFIG, **more), folder / name)
    return folder


def test_a_share_of_the_groups_is_part_of_a_larger_one_and_tests_on_the_same_clips(clips):
    shares = (0.1, 0.25, 0.5, 1.0)
    by_share = [make_splits(clips, dataclasses.replace(CONFIG, train_groups=s)) for s in shares]
    for smaller, larger in itertools.pairwise(by_share):
        for few, more in zip(smaller, larger, strict=True):
            np.testing.assert_array_equal(few.test, more.test)
            for part in ("train", "validation"):
                own, others = (set(getattr(split, part)) for split in (few, more))
                assert own < others or own == others
                groups = [set(clips.table.loc[list(rows), "group"]) for rows in (own, others - own)]
                assert not groups[0] & groups[1]  # whole groups
            assert len(few.train) < len(more.train)
            assert set(clips.table.loc[few.train, "label"]) == {"fall", "rise"}
    half, everything = by_share[2], by_share[3]
    for few, more in zip(half, everything, strict=True):
        assert len(few.train) == pytest.approx(len(more.train) / 2, abs=4)


def test_every_class_is_trained_on_however_small_the_share():
    source = rising_or_falling(clips=60, groups=30)
    source.frame["label"] = [f"c{i // 2 % 10}" for i in range(60)]
    source.frame["group"] = [f"g{i // 2:02d}" for i in range(60)]  # a group has one class
    splits = make_splits(load_clips(source), dataclasses.replace(CONFIG, train_groups=0.01))
    for split in splits:
        assert source.frame.loc[split.train, "label"].nunique() == 10


@pytest.mark.parametrize("share", [0.0, 1.5, -1])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ConfigError, match="train_groups is"):
        TrainConfig(train_groups=share)


@pytest.mark.long
def test_compare_lists_a_learning_curve_of_runs_on_one_board(runs, capsys):
    assert len(leaderboards(runs)) == 1
    [curve] = curves_among([runs / name for name in ("half", "all", "shuffled")])
    assert curve.runs == ("half", "all")
    assert curve.shares == (0.5, 1.0)
    assert curve.top1[-1] >= curve.top1[0]
    assert compare.run(compare.Settings(runs=str(runs)), json=False) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "learning curves, over whole groups" in out


@pytest.mark.long
def test_where_only_order_tells_the_classes_shuffled_steps_leave_chance(runs):
    lost = paired_difference(runs / "all", runs / "shuffled")
    assert lost["difference"] > 0.2
    assert lost["low"] > 0


def test_shuffled_steps_are_the_same_steps_in_memory_and_streamed(clips):
    shuffled = with_steps_shuffled(clips, 3)
    streamed = with_steps_shuffled(load_clips(clips.source, stream=True), 3)
    at = np.arange(len(clips))[::-7]
    features, mask = shuffled.gather(at)
    again, same = streamed.gather(at)
    np.testing.assert_array_equal(features, again)
    np.testing.assert_array_equal(mask, same)
    before, where = clips.gather(at)
    np.testing.assert_array_equal(where, mask)
    assert not np.array_equal(before, features)
    for own, real, other in zip(before, where, features, strict=True):
        assert sorted(map(bytes, own[real])) == sorted(map(bytes, other[real]))
        np.testing.assert_array_equal(own[~real], other[~real])
    other = with_steps_shuffled(clips, 4)
    assert not np.array_equal(other.features, shuffled.features)


def test_both_belong_to_a_runs_identity(clips):
    plain = plan_training(clips, CONFIG).identity.hash
    for more in ({"train_groups": 0.5}, {"shuffle_steps": True}):
        assert plan_training(clips, dataclasses.replace(CONFIG, **more)).identity.hash != plain
        assert set(more) <= set(dataclasses.replace(CONFIG, **more).to_dict())
    assert not {"train_groups", "shuffle_steps", "repeats"} & set(CONFIG.to_dict())
