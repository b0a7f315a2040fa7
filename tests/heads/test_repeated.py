"""Repeated grouped folds: other folds every time, one figure per clip and repeat, chance by groups."""

from __future__ import annotations

import dataclasses
import json
import shutil
import threading

import numpy as np
import pandas as pd
import pytest

from pipeline.errors import ConfigError
from pipeline.heads.clips import load_clips
from pipeline.heads.compare import leaderboards, paired_difference
from pipeline.heads.config import TrainConfig
from pipeline.heads.cuts import repeated_folds
from pipeline.heads.fitting import fit_single
from pipeline.heads.identity import Identity
from pipeline.heads.measures import bootstrap_interval
from pipeline.heads.plan import plan_training, resolve
from pipeline.heads.repeats import repeats_among
from pipeline.heads.run_folder import read_clips, read_config, recorded_splits
from pipeline.heads.splits import PARTS, make_folds
from pipeline.heads.training import train
from tests.heads.sources import rising_or_falling

CONFIG = TrainConfig(head="pyramid", split="kfold", folds=2, repeats=2, baselines=False)


@pytest.fixture(scope="module")
def clips():
    return load_clips(rising_or_falling(clips=72, groups=18))


@pytest.fixture(scope="module")
def runs(clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("repeated")
    for head in ("pyramid", "frame_average"):
        train(clips, dataclasses.replace(CONFIG, head=head), folder / head)
    return folder


def cut(splits, table):
    """Each repeat's folds as sets of groups."""
    found = {}
    for split in splits:
        groups = frozenset(table.loc[split.test, "group"])
        found.setdefault(split.repeat, set()).add(groups)
    return [frozenset(folds) for folds in found.values()]


def test_every_repeat_has_folds_of_its_own_by_whole_groups(clips):
    splits = make_folds(clips.table, folds=3, repeats=3, seed=4)
    assert [split.fold for split in splits] == list(range(9))
    assert {split.folds for split in splits} == {9}
    assert len(set(cut(splits, clips.table))) == 3
    for repeat in range(3):
        tested = np.concatenate([split.test for split in splits if split.repeat == repeat])
        assert sorted(tested) == list(clips.rows)
    for split in splits:
        groups = [set(clips.table.loc[getattr(split, part), "group"]) for part in PARTS]
        assert sum(map(len, groups)) == len(set().union(*groups))


def test_the_first_repeat_is_the_cross_validation_without_repeats(clips):
    once = make_folds(clips.table, folds=3, seed=4)
    often = make_folds(clips.table, folds=3, repeats=3, seed=4)
    for split, same in zip(once, often[:3], strict=True):
        assert split.seed == same.seed == 4
        for part in PARTS:
            np.testing.assert_array_equal(getattr(split, part), getattr(same, part))
    assert len({split.seed for split in often}) == 3


def test_more_repeats_than_there_are_cuts_are_refused():
    few = load_clips(rising_or_falling(clips=16, groups=4)).table
    ways = len(repeated_folds(few, 2, 0, 3))
    assert ways == 3  # four groups in two pairs
    with pytest.raises(ConfigError, match=r"into 2 folds in 3 ways.* at most 3 repeats"):
        repeated_folds(few, 2, 0, 4)


@pytest.mark.parametrize("how", ["grouped", "leave_one_group_out", "auto"])
def test_only_folds_are_repeated(clips, how):
    config = dataclasses.replace(CONFIG, split=how)
    with pytest.raises(ConfigError, match=r"repeats is 2 and split is .*: .*add --split kfold"):
        plan_training(clips, config)


def test_a_run_has_a_prediction_of_every_clip_in_every_repeat(clips, runs):
    metrics = train_metrics(runs / "pyramid")
    table = pd.read_csv(runs / "pyramid" / "predictions.csv")
    assert len(table) == 2 * len(clips)
    assert not table.duplicated(["video_id", "repeat"]).any()
    assert metrics["test"]["clips"] == metrics["train_clips"] == len(clips)
    assert len(metrics["folds"]) == 4
    by_repeat = (table["label"] == table["predicted"]).groupby(table["repeat"]).mean()
    assert [each["top1"] for each in metrics["repeats"]] == pytest.approx(by_repeat.tolist())
    assert metrics["test"]["groups"] == 18
    folds = read_clips(runs / "pyramid")["fold"].str.split()
    assert (folds.map(len) == 2).all()
    splits = recorded_splits(read_config(runs / "pyramid"))
    assert [split.repeat for split in splits] == [0, 0, 1, 1]


def train_metrics(run):
    from pipeline.heads.run_folder import read_metrics

    return read_metrics(run)


def test_two_repeated_runs_are_paired_by_clip_and_repeat_and_resampled_by_groups(runs):
    assert len(leaderboards(runs)) == 1
    found = paired_difference(runs / "pyramid", runs / "frame_average")
    assert found["clips"] == 72
    assert found["groups"] == 18
    tables = [pd.read_csv(runs / name / "predictions.csv") for name in ("pyramid", "frame_average")]
    hits = [(t["label"] == t["predicted"]).astype(float) for t in tables]
    merged = (
        tables[0]
        .assign(a=hits[0])
        .merge(tables[1].assign(b=hits[1]), on=["video_id", "repeat"], suffixes=("", "_other"))
    )
    assert found["difference"] == pytest.approx((merged["a"] - merged["b"]).mean())
    expected = bootstrap_interval(
        (merged["a"] - merged["b"]).to_numpy(), merged["group"].to_numpy()
    )
    assert (found["low"], found["high"]) == pytest.approx(expected, abs=0.02)


def test_another_stream_with_fewer_repeats_is_paired_on_the_folds_that_both_have(runs, tmp_path):
    shutil.copytree(runs / "frame_average", tmp_path / "once")
    config = json.loads((tmp_path / "once" / "config.json").read_text(encoding="utf-8"))
    config |= {"folds": config["folds"][:2], "fingerprint": "e" * 64}
    (tmp_path / "once" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    table = pd.read_csv(tmp_path / "once" / "predictions.csv")
    once = table[table["repeat"] == 0].drop(columns="repeat")
    once.to_csv(tmp_path / "once" / "predictions.csv", index=False)
    with pytest.raises(ConfigError, match="not tested on the same clips"):
        paired_difference(runs / "pyramid", tmp_path / "once")
    found = paired_difference(runs / "pyramid", tmp_path / "once", same_features=False)
    mine = pd.read_csv(runs / "pyramid" / "predictions.csv").query("repeat == 0")
    hits = [(each["label"] == each["predicted"]).mean() for each in (mine, once)]
    assert found["difference"] == pytest.approx(hits[0] - hits[1])
    assert found["clips"] == 72


def test_repeats_of_a_clip_are_no_further_chance():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(12), 6)
    hits = (rng.random(12) < 0.5).astype(float)[groups]  # a group is right or wrong as a whole
    once = bootstrap_interval(hits, groups)
    often = bootstrap_interval(np.tile(hits, 9), np.tile(groups, 9))
    assert often == pytest.approx(once)
    clips = bootstrap_interval(np.tile(hits, 9), np.arange(9 * 72))
    assert clips[1] - clips[0] < (once[1] - once[0]) / 4  # what resampling clips would claim


@pytest.mark.long
def test_a_stopped_run_goes_on_with_the_fold_that_was_interrupted(clips, runs, tmp_path):
    stop = threading.Event()
    seen = []

    def after_two(report):
        seen.append(report.fold)
        if len(seen) == 2:
            stop.set()

    with pytest.raises(KeyboardInterrupt):
        train(clips, CONFIG, tmp_path / "run", on_epoch=after_two, stop=stop)
    again = []
    whole = train(
        clips, CONFIG, tmp_path / "run", resume=True, on_epoch=lambda r: again.append(r.fold)
    )
    assert again[0] in (1, 2)
    assert again[-1] == 4
    assert whole["digest"] == train_metrics(runs / "pyramid")["digest"]
    first, second = (
        (folder / "predictions.csv").read_bytes() for folder in (runs / "pyramid", tmp_path / "run")
    )
    assert first == second


def test_other_repeats_are_another_run(clips, runs, tmp_path):
    shutil.copytree(runs / "pyramid", tmp_path / "run")
    (tmp_path / "run" / "checkpoint").mkdir()
    with pytest.raises(ConfigError, match="repeats 2, now 3"):
        train(clips, dataclasses.replace(CONFIG, repeats=3), tmp_path / "run", resume=True)
    assert "repeats" not in dataclasses.replace(CONFIG, repeats=1).to_dict()
    assert repeats_among([runs / "pyramid"]) == []
    assert Identity.load(runs / "pyramid").parts[0] != Identity.load(runs / "pyramid").parts[2]


@pytest.mark.parametrize("head", ["pyramid", "frame_average"])
def test_nothing_of_a_fold_is_decided_by_its_test_clips(clips, head):
    """The same head to the bit where the test clips of the fold shout their labels, or lie."""
    config = dataclasses.replace(CONFIG, head=head)
    split = make_folds(clips.table, folds=3, repeats=2, seed=1)[4]
    settings = resolve(config, [split])
    test = clips.positions(split.test)
    shouting, labels = clips.features.copy(), clips.labels.copy()
    shouting[test] = 100 * (clips.labels[test] - 0.5)[:, None, None]
    labels[test] = 1 - labels[test]
    weights = []
    for other in (clips, dataclasses.replace(clips, features=shouting, labels=labels)):
        fitted = fit_single(other, split, settings)
        weights.append(fitted.fit.model.get_weights())
    for mine, theirs in zip(*weights, strict=True):
        np.testing.assert_array_equal(mine, theirs)
