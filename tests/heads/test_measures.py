"""Figures are what their names say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pipeline.heads import leakage
from pipeline.heads.augmentation import drop_features, jitter_steps
from pipeline.heads.clips import load_clips
from pipeline.heads.config import TrainConfig
from pipeline.heads.evaluation import confident_mistakes
from pipeline.heads.leakage import near_identical
from pipeline.heads.measures import (
    bootstrap_interval,
    calibration_error,
    confusion,
    interval_record,
    label_ranks,
    measure,
    per_class,
    predicted_classes,
)
from pipeline.heads.splits import make_split
from pipeline.heads.statistics import masked_statistics
from pipeline.heads.training import train
from tests.heads.sources import rising_or_falling

DRAWS = False

P = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.5, 0.3, 0.2], [0.2, 0.2, 0.6]], np.float32)
Y = np.array([0, 1, 2, 2])


def test_top1_top5_and_loss_by_hand():
    figures = measure(P, Y)
    assert figures["top1"] == 0.75
    assert figures["top5"] == 1
    assert figures["loss"] == pytest.approx(-np.log([0.7, 0.6, 0.2, 0.6]).mean(), rel=1e-6)
    assert figures["clips"] == 4


def test_of_equal_classes_the_first_is_predicted_and_every_figure_says_so():
    rng = np.random.default_rng(0)
    # Few values and five classes: most clips have ties.
    tied = rng.choice(np.float32([0, 0.5, 1]), (300, 5))
    labels = rng.integers(0, 5, 300)
    predicted = predicted_classes(tied)
    np.testing.assert_array_equal(predicted, np.argsort(-tied, axis=1, kind="stable")[:, 0])
    np.testing.assert_array_equal(label_ranks(tied, labels) == 0, predicted == labels)
    top1 = measure(tied, labels)["top1"]
    assert top1 == np.trace(confusion(tied, labels)) / 300 == (predicted == labels).mean()
    assert label_ranks(np.full((2, 4), 0.25, np.float32), np.array([0, 3])).tolist() == [0, 3]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("place", [0, 1])
def test_a_probability_that_is_no_number_is_never_right(bad, place):
    p = np.tile(np.float32([0.9, 0.1, 0]), (4, 1))
    p[0, place] = bad
    labels = np.zeros(4, int)
    figures = measure(p, labels)
    assert figures["top1"] == figures["top5"] == 0.75
    assert predicted_classes(p)[0] == -1
    assert label_ranks(p, labels)[0] == 5
    assert confusion(p, labels).sum() == 3
    assert per_class(p, labels, list("abc"))["recall"][0] == 0.75
    assert 0 <= figures["ece"] <= 1


def test_without_clips_no_figure_is_a_number():
    figures = measure(np.zeros((0, 3), np.float32), np.zeros(0, int))
    assert figures.pop("clips") == 0
    assert np.isnan(list(figures.values())).all()


@pytest.mark.parametrize("groups", range(1, 8))
def test_there_is_no_interval_below_five_groups(groups):
    hits, of = np.arange(24) % 3 > 0, np.arange(24) // 2 % groups
    low, high = bootstrap_interval(hits, of)
    record = interval_record(hits, of)
    assert record["groups"] == groups
    if groups < 5:
        assert np.isnan([low, high]).all()
        assert record["top1_interval"] is None
    else:
        assert low < hits.mean() < high
        assert record["top1_interval"] == [low, high]


def test_per_class_figures_and_confusion_by_hand():
    assert confusion(P, Y).tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 1]]
    table = per_class(P, Y, ["a", "b", "c"]).set_index("class")
    assert table["precision"].tolist() == [0.5, 1, 1]
    assert table["recall"].tolist() == [1, 1, 0.5]
    assert table.loc["c", "f1"] == pytest.approx(2 / 3)


def test_a_calibrated_classifier_has_no_calibration_error():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 40_000)
    right = rng.random(40_000) < confidence
    p = np.stack([confidence, 1 - confidence], axis=1).astype(np.float32)
    assert calibration_error(p, np.where(right, 0, 1)) < 0.015
    assert calibration_error(p, np.ones(40_000, int)) > 0.5


def test_the_interval_widens_when_clips_share_groups():
    rng = np.random.default_rng(1)
    hits = np.repeat(rng.random(30) < 0.7, 20)
    alone = bootstrap_interval(hits, np.arange(600))
    grouped = bootstrap_interval(hits, np.repeat(np.arange(30), 20))
    assert grouped[1] - grouped[0] > 2 * (alone[1] - alone[0])
    assert grouped[0] <= hits.mean() <= grouped[1]


def test_statistics_are_the_real_steps_alone():
    source = rising_or_falling()
    source.features[~source.mask] = 1000
    at = np.arange(0, 64, 2)
    statistics = masked_statistics(load_clips(source), at)
    steps = source.features[at][source.mask[at]].astype(np.float64)
    np.testing.assert_allclose(statistics.mean, steps.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(1 / statistics.scale, steps.std(axis=0), rtol=1e-5)


def test_a_constant_channel_is_silenced_and_a_nearly_constant_one_cannot_shout():
    source = rising_or_falling()
    source.features[..., 0] = 3
    source.features[..., 1] = 0
    source.features[5, 0, 1] = 1e-4
    scale = masked_statistics(load_clips(source), np.arange(64)).scale
    assert scale[0] == 0
    assert scale[1] < 30 * np.median(scale[2:])


def near_identical_clips(source, split):
    clips = load_clips(source)
    statistics = masked_statistics(clips, clips.positions(split.train))
    return near_identical(clips, split, statistics, near=0.9999)


def test_a_copied_clip_is_named_as_leakage():
    source = rising_or_falling(clips=96, groups=24)
    rng = np.random.default_rng(0)
    scenes = rng.normal(0, 1, (96, 1, 6))
    source.features = (source.features + scenes).astype(np.float16)
    split = make_split(source.table())
    before = near_identical_clips(source, split)
    test, other = int(split.test[0]), int(split.train[3])
    source.features[test], source.mask[test] = source.features[other], source.mask[other]
    after = near_identical_clips(source, split)
    ids = source.frame["video_id"]
    assert (ids[test], ids[other]) in set(zip(after["test"], after["other"], strict=True))
    assert len(before) < len(after)


@pytest.mark.parametrize(("split", "trainings"), [("grouped", 1), ("kfold", 2)])
def test_near_identical_clips_are_looked_for_once_a_training(
    split, trainings, tmp_path, monkeypatch
):
    calls = []

    def counted(*arguments, **options):
        calls.append(arguments)
        return near_identical(*arguments, **options)

    monkeypatch.setattr(leakage, "near_identical", counted)
    config = TrainConfig(head="frame_average", epochs=1, split=split, folds=2)
    train(rising_or_falling(clips=32), config, tmp_path / "run")
    assert len(calls) == trainings


def test_jitter_keeps_order_padding_and_reach():
    features = np.tile(np.arange(10.0)[None, :, None], (200, 1, 2))
    mask = np.arange(10)[None] < np.full((200, 1), 7)
    moved = jitter_steps(features, mask, 2, np.random.default_rng(0))[..., 0]
    assert (np.diff(moved[:, :7], axis=1) >= 0).all()
    assert np.abs(moved - features[..., 0])[:, :7].max() == 2
    np.testing.assert_array_equal(moved[:, 7:], features[:, 7:, 0])
    assert moved[:, :7].max() == 6


def test_dropped_channels_hold_the_training_mean_at_every_step():
    features = np.ones((50, 4, 30), np.float32)
    fill = np.full(30, 9, np.float32)
    dropped = drop_features(features, 0.25, fill, np.random.default_rng(0))
    assert (dropped == dropped[:, :1]).all()
    assert (dropped == 9).mean() == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("shape", [(30,), (11, 3), (4, 5, 3)])
def test_channels_of_every_kind_of_step_can_be_dropped(shape):
    features = np.ones((40, 4, *shape), np.float16)
    channels = 3 if len(shape) == 3 else int(np.prod(shape))
    fill = np.arange(2, channels + 2).astype(np.float32)
    dropped = drop_features(features, 0.5, fill, np.random.default_rng(0))
    assert dropped.shape == features.shape
    assert dropped.dtype == features.dtype
    flat = dropped.reshape(40, 4, -1, channels)
    assert (flat == flat[:, :1, :1]).all()
    assert ((flat == 1) | (flat == fill)).all()
    assert (flat == fill).mean() == pytest.approx(0.5, abs=0.15)


def test_the_surest_mistakes_come_first():
    table = pd.DataFrame(
        {
            "video_id": list("abcd"),
            "part": ["test", "test", "test", "validation"],
            "label": ["x", "x", "y", "x"],
            "predicted": ["y", "x", "x", "y"],
            "confidence": [0.6, 0.9, 0.8, 0.99],
        }
    )
    assert confident_mistakes(table)["video_id"].tolist() == ["c", "a"]
