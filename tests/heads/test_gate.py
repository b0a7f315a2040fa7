"""No clip, group or bytes of a test clip is trained on, wherever a split comes from."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.heads.clips import load_clips
from pipeline.heads.config import TrainConfig
from pipeline.heads.fitting import fit_single
from pipeline.heads.freezing import cut_holdout
from pipeline.heads.holdout import Holdout
from pipeline.heads.leakage import LeakError, require_apart, require_unseen, unseen
from pipeline.heads.plan import resolve
from pipeline.heads.run_folder import read_clips, trained_clips
from pipeline.heads.source import contents, group_names
from pipeline.heads.splits import make_folds, make_split
from pipeline.heads.training import train
from tests.heads.sources import MemorySource, rising_or_falling

QUICK = TrainConfig(head="mlp", options={"units": 4, "second_units": 4}, epochs=1, baselines=False)
PARTS = ("train", "validation", "test")
DRAWS = False


def source_with(**columns) -> MemorySource:
    source = rising_or_falling(clips=96, groups=24)
    source.frame = source.frame.assign(**columns)
    return source


def leaky(clips, what: str):
    """A grouped split into which a leak of one kind has been planted, from test to training."""
    split = make_split(clips.table)
    moved = split.test[:1]
    if what == "row":
        return clips, replace(split, train=np.sort(np.append(split.train, moved)))
    if what == "group":
        train, test = np.append(split.train, moved), split.test[1:]
        return clips, replace(split, train=np.sort(train), test=test)
    hashes = np.array([f"{i:064x}" for i in range(len(clips))], dtype=object)
    hashes[split.train[0]] = hashes[split.test[0]]
    return replace(clips, table=clips.table.assign(sha256=hashes)), split


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("row", "1 of .* test clips are also in training"),
        ("group", "test clips are of groups that are also in training"),
        ("bytes", "1 of .* test clips have the bytes of clips in training"),
    ],
)
def test_a_planted_leak_is_refused_with_the_ids(what, says):
    clips, split = leaky(load_clips(rising_or_falling(clips=96, groups=24)), what)
    with pytest.raises(LeakError, match=says) as refused:
        require_apart(clips, split)
    assert ".mp4 with " in str(refused.value)
    settings = resolve(TrainConfig(head="frame_average", epochs=1), [split])
    with pytest.raises(LeakError, match=says):
        fit_single(clips, split, settings)


@pytest.mark.parametrize("what", ["row", "group", "bytes"])
@pytest.mark.parametrize("split", ["grouped", "kfold"])
def test_no_training_passes_the_gate_with_a_leak(what, split, tmp_path, monkeypatch):
    clips, bad = leaky(load_clips(rising_or_falling(clips=96, groups=24)), what)
    bad = replace(bad, how=split)
    folds = [bad] if split == "grouped" else [replace(bad, fold=i, folds=3) for i in range(3)]
    monkeypatch.setattr("pipeline.heads.plan.make_splits", lambda *_: tuple(folds))
    with pytest.raises(LeakError):
        train(clips, replace(QUICK, split=split), tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_a_clip_that_two_parts_share_is_refused_for_validation_too():
    clips = load_clips(rising_or_falling(clips=96, groups=24))
    split = make_split(clips.table)
    shared = replace(split, validation=np.sort(np.append(split.validation, split.train[0])))
    with pytest.raises(LeakError, match="validation clips are also in training"):
        require_apart(clips, shared)
    shared = replace(split, validation=np.sort(np.append(split.validation, split.test[0])))
    with pytest.raises(LeakError, match="test clips are also in validation"):
        require_apart(clips, shared)


def test_groups_may_straddle_by_the_users_own_wish_and_it_is_said(tmp_path):
    source = source_with(split=np.where(np.arange(96) % 4 < 3, "train", "test"))
    assert (source.frame.groupby("group")["split"].nunique() == 2).any()
    metrics = train(source, QUICK, tmp_path / "run")
    assert metrics["straddling"] > 0
    leaks = pd.read_csv(tmp_path / "run" / "leakage.csv")
    assert (leaks["why"] == "same group").sum() == metrics["straddling"]


def test_bytes_never_straddle_a_given_split(tmp_path):
    hashes = [f"{i:064x}" for i in range(96)]
    hashes[0] = hashes[3]
    source = source_with(split=np.where(np.arange(96) % 4 < 3, "train", "test"), sha256=hashes)
    with pytest.raises(LeakError, match=r"clip_003\.mp4 with .*clip_000\.mp4.*correct the split"):
        train(source, QUICK, tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.json").exists()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["auto", "grouped", "stratified", "kfold"]))
def test_equal_bytes_are_on_one_side_of_every_split(seed, how):
    rng = np.random.default_rng(seed)
    n = 120
    frame = pd.DataFrame(
        {
            "video_id": [f"{i}.mp4" for i in range(n)],
            "label": np.array(["a", "b", "c"])[np.arange(n) % 3],
            "group": [f"g{i}" if rng.random() < 0.8 else "" for i in rng.integers(0, 30, n)],
            "split": "",
            "status": 1,
            "sha256": [f"{i:x}" if rng.random() < 0.9 else "" for i in rng.integers(0, 400, n)],
            "digest": np.arange(1, n + 1),
        }
    )
    try:
        splits = make_folds(frame) if how == "kfold" else [make_split(frame, how=how, seed=seed)]
    except ConfigError:
        reject()
    content, group = contents(frame), group_names(frame)
    for split in splits:
        keys = [content] if split.how == "stratified" else [content, group]
        for values in keys:
            sides = [set(values[getattr(split, part)]) for part in PARTS]
            assert sum(map(len, sides)) == len(set().union(*sides))


def test_a_clip_without_a_hash_is_known_by_its_features():
    frame = pd.DataFrame({"sha256": ["aa", "", "", "bb"], "digest": [7, 7, 9, 0]})
    assert contents(frame).tolist() == ["sha256:aa", "sha256:aa", "digest:9", "sha256:bb"]


def test_groups_that_share_bytes_are_one_group_however_long_the_chain():
    n = 40
    frame = pd.DataFrame(
        {
            "video_id": [f"{i}" for i in range(n)],
            "group": [f"g{i // 2:02d}" for i in range(n)],
            "sha256": [str((i + 1) // 2) for i in range(n)],
        }
    )
    assert set(group_names(frame)) == {"g00"}


class TestHoldouts:
    """A store's test sets: tested by name, and out of every training."""

    def clips(self, *names: str, **columns):
        source = source_with(**columns)
        clips = load_clips(source)
        made = []
        for i, name in enumerate(names):
            chosen = clips.table["group"].isin([f"g{4 * i + j:02d}" for j in range(4)])
            made.append(Holdout.of(name, clips.table[chosen].iloc[::2]))
        return replace(clips, holdouts=tuple(made))

    @pytest.mark.parametrize(
        "how",
        [
            "grouped",
            *(pytest.param(way, marks=pytest.mark.long) for way in ("stratified", "kfold")),
        ],
    )
    def test_its_clips_and_groups_are_in_no_training(self, how, tmp_path):
        clips = self.clips("one", "two")
        config = replace(QUICK, split=how, test_set="one", folds=3)
        metrics = train(clips, config, tmp_path / "run")
        took = read_clips(tmp_path / "run").set_index("video_id")
        one, two = clips.holdouts
        trained = set(took.index[took["part"].isin(["train", "validation"])])
        groups = set(took.loc[sorted(trained), "group"])
        assert not groups & (one.groups | two.groups)
        assert set(took.index[took["part"] == "test"]) == one.video_ids
        assert metrics["test_set"]["name"] == "one"
        assert metrics["test_set"]["clips"] == len(one.video_ids)
        # The other half of its groups, and all of the other set's.
        assert metrics["left_out"]["kept_out"] == 32 - 8 * (how != "kfold")

    def test_without_its_name_it_is_out_all_the_same(self):
        clips = self.clips("one")
        split = make_split(clips.table, holdouts=clips.holdouts)
        used = np.concatenate([getattr(split, part) for part in PARTS])
        assert not set(clips.table.loc[used, "group"]) & clips.holdouts[0].groups

    def test_new_clips_of_its_groups_or_bytes_stay_out_new_groups_join(self):
        clips = self.clips("one", sha256=[f"{i:064x}" for i in range(96)])
        (one,) = clips.holdouts
        tested = clips.table[one.tested(clips.table)].iloc[0]
        new = pd.DataFrame(
            {
                "video_id": ["same-group", "same-bytes", "sibling", "new"],
                "label": "rise",
                "split": "",
                "group": [tested["group"], "elsewhere", "elsewhere", "brand-new"],
                "status": 1,
                "sha256": ["f1", tested["sha256"], "f2", "f3"],
                "digest": [1001, 1002, 1003, 1004],
            }
        )
        # The tested clip itself has gone since: what it was is remembered.
        table = pd.concat([clips.table.drop(index=tested.name), new], ignore_index=True)
        split = make_split(table, holdouts=clips.holdouts, test_set="one")
        used = set(table.loc[np.concatenate([split.train, split.validation]), "video_id"])
        assert "new" in used
        assert not used & {"same-group", "same-bytes", "sibling"}
        assert set(table.loc[split.test, "video_id"]) == one.video_ids - {tested["video_id"]}

    def test_a_training_on_its_clips_is_refused(self):
        clips = self.clips("one")
        split = make_split(clips.table)
        with pytest.raises(LeakError, match="kept out of every training by the test set one"):
            require_apart(clips, split)

    def test_an_unknown_name_and_an_empty_set_are_said(self):
        clips = self.clips("one")
        with pytest.raises(ConfigError, match=r"no test set 'two' \(it has one\).*freeze"):
            make_split(clips.table, holdouts=clips.holdouts, test_set="two")
        (one,) = clips.holdouts
        table = clips.table[~one.tested(clips.table)]
        with pytest.raises(ConfigError, match="none of the 8 clips of the test set one"):
            make_split(table, holdouts=clips.holdouts, test_set="one")
        with pytest.raises(ConfigError, match="no clip can be set apart as two"):
            cut_holdout(replace(clips, table=clips.table[:0]), "two")

    def test_it_reads_back(self):
        (one,) = self.clips("one").holdouts
        assert Holdout.from_dict("one", json.loads(json.dumps(one.to_dict()))) == one
        with pytest.raises(ConfigError, match="cannot be read"):
            Holdout.from_dict("one", {"clips": []})


def test_a_head_is_not_judged_by_clips_that_it_has_seen(tmp_path):
    source = rising_or_falling(clips=96, groups=24)
    clips = load_clips(source)
    train(clips, QUICK, tmp_path / "run")
    trained = trained_clips(tmp_path / "run", clips.table)
    took = read_clips(tmp_path / "run")
    test = clips.positions(took.loc[took["part"] == "test", "row"].to_numpy())
    require_unseen("run", clips, test, trained, groups=True)
    everything = np.arange(len(clips))
    with pytest.raises(LeakError, match=r"run cannot be evaluated .* trained on \d+ of 96"):
        require_unseen("run", clips, everything, trained, groups=True)
    assert set(everything[unseen(clips, everything, trained, groups=True)]) == set(test)
    # The same of a run that was made before clips.csv.
    (tmp_path / "run" / "clips.csv").unlink()
    older = trained_clips(tmp_path / "run", clips.table)
    assert set(older["video_id"]) == set(trained["video_id"])
    assert set(everything[unseen(clips, everything, older, groups=True)]) == set(test)


@pytest.mark.long
def test_the_head_of_several_folds_has_seen_all_their_clips(tmp_path):
    clips = load_clips(rising_or_falling(clips=48, groups=12))
    train(clips, replace(QUICK, split="kfold"), tmp_path / "run")
    assert (tmp_path / "run" / "leakage.csv").exists()
    for _ in range(2):
        trained = trained_clips(tmp_path / "run", clips.table)
        assert not unseen(clips, np.arange(48), trained, groups=False).any()
        (tmp_path / "run" / "clips.csv").unlink(missing_ok=True)


@pytest.mark.parametrize(
    "what", ["row", *(pytest.param(what, marks=pytest.mark.long) for what in ("group", "bytes"))]
)
def test_a_resumed_training_passes_the_gate_again(what, tmp_path):
    source = source_with(sha256=[f"{i:064x}" for i in range(96)])

    def interrupt(report):
        raise KeyboardInterrupt

    train(source, replace(QUICK, epochs=3), tmp_path / "run", on_epoch=interrupt)
    path = tmp_path / "run" / "config.json"
    config = json.loads(path.read_text())
    parts = config["split"]
    if what == "bytes":
        # The file behind a training clip is a copy of a tested one now.
        copied, of = parts["train"]["rows"][0], parts["test"]["rows"][0]
        source.frame.loc[copied, "sha256"] = source.frame.loc[of, "sha256"]
    else:
        for key in ("rows", "digests", "video_ids"):
            moved = parts["test"][key][0]
            parts["train"][key] = sorted([*parts["train"][key], moved])
            if what == "group":
                parts["test"][key] = parts["test"][key][1:]
        path.write_text(json.dumps(config))
    with pytest.raises(LeakError):
        train(source, replace(QUICK, epochs=3), tmp_path / "run", resume=True)
