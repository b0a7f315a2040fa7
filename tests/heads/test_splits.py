"""Splits keep groups whole, balance classes, repeat by seed and refuse what cannot be."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.heads import cuts
from pipeline.heads.splits import FOLDED, make_folds, make_split, resolve_way, split_notes

PARTS = ("train", "validation", "test")


def table(labels, groups=None, split="", status=1):
    n = len(labels)
    return pd.DataFrame(
        {
            "video_id": [f"{i}.mp4" for i in range(n)],
            "label": labels,
            "group": groups if groups is not None else [""] * n,
            "split": split,
            "status": status,
        },
        index=pd.RangeIndex(n, name="row"),
    )


def ucf(classes=5, groups=25, clips=4):
    """Every class has clips of every group, as in UCF."""
    rows = [(c, g) for c in range(classes) for g in range(groups) for _ in range(clips)]
    return table([f"c{c}" for c, _ in rows], [f"g{g:02d}" for _, g in rows])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 4), st.integers(6, 30))
def test_no_group_straddles_a_split_and_no_clip_is_lost(seed, classes, groups):
    rng = np.random.default_rng(seed)
    n = groups * 4
    of = np.arange(n) % groups
    frame = table([f"c{i}" for i in (of + rng.integers(0, 2, n)) % classes], [f"g{g}" for g in of])
    try:
        split = make_split(frame, how="grouped", seed=seed)
    except ConfigError:
        # Few groups may leave a class without a training clip; Hypothesis fails if most examples do.
        reject()
    seen = [set(frame.loc[getattr(split, part), "group"]) for part in PARTS]
    assert sum(map(len, seen)) == len(set().union(*seen))
    rows = np.concatenate([getattr(split, part) for part in PARTS])
    assert sorted(rows) == list(range(n))


def test_classes_are_balanced_as_well_as_groups_allow():
    frame = ucf()
    split = make_split(frame, seed=3)
    assert split.how == "grouped"
    for part, share in zip(PARTS, (0.7, 0.15, 0.15), strict=True):
        counts = frame.loc[getattr(split, part), "label"].value_counts()
        assert len(counts) == 5
        assert np.abs(counts / 100 - share).max() <= 0.05


def test_equal_seeds_give_equal_splits_and_other_seeds_others():
    frame = ucf()
    first, again = make_split(frame, seed=1), make_split(frame, seed=1)
    np.testing.assert_array_equal(first.test, again.test)
    assert not np.array_equal(first.test, make_split(frame, seed=2).test)


@pytest.mark.parametrize("how", ["kfold", "leave_one_group_out"])
def test_every_clip_tests_once_apart_from_its_group(how):
    frame = ucf(classes=3, groups=9, clips=2)
    folds = make_folds(frame, how=how, folds=3)
    assert len(folds) == (3 if how == "kfold" else 9)
    tested = np.concatenate([fold.test for fold in folds])
    assert sorted(tested) == list(range(len(frame)))
    for fold in folds:
        groups = [set(frame.loc[getattr(fold, part), "group"]) for part in PARTS]
        assert sum(map(len, groups)) == len(set().union(*groups))


def test_the_datas_own_split_is_kept_and_validation_is_cut_from_training():
    frame = ucf()
    frame["split"] = np.where(frame["group"] < "g07", "test", "train")
    split = make_split(frame)
    assert split.how == "given"
    assert set(frame.loc[split.test, "group"]) == {f"g{i:02d}" for i in range(7)}
    assert set(frame.loc[split.validation, "split"]) == {"train"}
    assert not set(frame.loc[split.validation, "group"]) & set(frame.loc[split.train, "group"])


def test_a_given_validation_part_is_used_as_it_is():
    frame = ucf()
    frame["split"] = np.select(
        [frame["group"] < "g05", frame["group"] < "g09"], ["test", "val"], "train"
    )
    split = make_split(frame)
    assert set(frame.loc[split.validation, "split"]) == {"val"}


def test_without_groups_each_class_is_cut_in_proportion():
    frame = table(["a"] * 60 + ["b"] * 20)
    split = make_split(frame)
    assert split.how == "stratified"
    assert frame.loc[split.test, "label"].value_counts().to_dict() == {"a": 9, "b": 3}
    assert frame.loc[split.train, "label"].value_counts().to_dict() == {"a": 42, "b": 14}


def test_only_ready_and_labelled_rows_take_part():
    frame = ucf(classes=2, groups=6, clips=2)
    frame.loc[0, "status"] = 2
    frame.loc[1, "label"] = ""
    split = make_split(frame)
    rows = np.concatenate([getattr(split, part) for part in PARTS])
    assert not {0, 1} & set(rows.tolist())


def test_unknown_groups_are_groups_of_their_own():
    frame = table(["a", "b"] * 10, ["g1", "g1"] + [""] * 18)
    assert resolve_way(frame, "auto") == "grouped"
    split = make_split(frame)
    assert len(split.train) > 10


@pytest.mark.parametrize(
    ("frame", "how", "message"),
    [
        (table(["a"] * 9), "auto", "at least two"),
        (table(["a", "b"] * 5, ["g1", "g2"] * 5), "grouped", "at least 3 groups.*have 2"),
        (table(["a", "b"] * 5, ["g1", "g2"] * 5), "kfold", "5 folds cannot be made of 2 groups"),
        (table(["a", "b"] * 5), "given", "no train and no test"),
        (table(["a", "b"] * 5), "halves", "not known"),
        (table(["a", "b"]), "stratified", "leaves no clip"),
    ],
)
def test_refuses_what_cannot_be_in_one_sentence(frame, how, message):
    with pytest.raises(ConfigError, match=message):
        (make_folds if how in FOLDED else make_split)(frame, how=how)


def test_one_clip_without_a_group_keeps_the_split_grouped():
    frame = ucf(classes=3, groups=10, clips=2)
    frame.loc[0, "group"] = ""
    split = make_split(frame)
    assert split.how == "grouped"
    seen = [set(frame.loc[getattr(split, part), "group"]) - {""} for part in PARTS]
    assert sum(map(len, seen)) == len(set().union(*seen))
    assert split_notes(frame, "auto") == [
        "1 of 60 clips have no group: each counts as a group of its own"
    ]


def test_blanks_and_case_of_the_split_column_do_not_count():
    frame = ucf()
    frame["split"] = np.select(
        [frame["group"] < "g05", frame["group"] < "g09", frame["group"] < "g15"],
        [" TEST", "dev", "Train "],
        "training",
    )
    split = make_split(frame)
    assert split.how == "given"
    assert sum(len(getattr(split, part)) for part in PARTS) == len(frame)
    assert set(frame.loc[split.validation, "split"]) == {"dev"}


def test_a_split_name_that_is_not_known_is_refused_with_its_number():
    frame = ucf()
    frame["split"] = np.where(frame["group"] < "g07", "test", "train")
    frame.loc[:9, "split"] = "trian"
    with pytest.raises(ConfigError, match=r"'trian' on 10 of 500 clips.*use train, validation"):
        make_split(frame)
    assert make_split(frame, how="grouped").how == "grouped"


def test_clips_without_a_split_are_counted_and_never_used():
    frame = ucf()
    frame["split"] = np.where(frame["group"] < "g07", "test", "train")
    frame.loc[490:, "split"] = " "
    split = make_split(frame)
    used = np.concatenate([getattr(split, part) for part in PARTS])
    assert not set(used) & set(range(490, 500))
    (note,) = split_notes(frame, "auto")
    assert note.startswith("10 of 500 clips have no split")


def test_a_split_column_that_names_no_part_is_said_to_be_unused():
    frame = ucf()
    frame["split"] = "fold1"
    assert make_split(frame).how == "grouped"
    assert split_notes(frame, "auto") == [
        "the split column of these clips is not used: split is grouped"
    ]


def test_labels_and_groups_do_not_differ_by_blanks():
    frame = ucf(classes=2, groups=6, clips=2)
    frame.loc[0, ["label", "group"]] = ["c0 ", " g00"]
    split = make_split(frame)
    where = next(part for part in PARTS if 0 in getattr(split, part))
    assert 1 in getattr(split, where)  # the other clip of its group


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("given", "the data's own split has only-tested in its test clips only: give it training"),
        ("kfold", "kfold split has only-tested in its test clips only: its 2 clips are of 1 group"),
    ],
)
def test_a_class_without_training_clips_is_refused_for_its_true_reason(how, message):
    frame = ucf(classes=2, groups=6, clips=2)
    frame["split"] = np.where(frame["group"] == "g00", "test", "train")
    frame.loc[[0, 1], "label"] = "only-tested"
    with pytest.raises(ConfigError, match=message):
        (make_folds if how in FOLDED else make_split)(frame, how=how)


def of_groups(sizes: list[int], classes: int = 2) -> pd.DataFrame:
    """A table with groups of these sizes, each of one class in turn."""
    number = np.repeat(np.arange(len(sizes)), sizes)
    return pd.DataFrame(
        {
            "video_id": [f"{i}.mp4" for i in range(len(number))],
            "label": [f"class {n % classes}" for n in number],
            "group": [f"g{n:03d}" for n in number],
            "split": "",
            "status": 1,
        }
    )


@pytest.mark.parametrize("seed", range(5))
def test_of_splits_as_near_the_one_with_more_test_groups_is_taken(seed):
    # 15 % are 30 clips: two groups of ten and ten of one, or one of ten and twenty of one.
    table = of_groups([*[20] * 4, *[10] * 8, *[1] * 40])
    split = make_split(table, seed=seed)
    for part in (split.test, split.validation):
        assert len(part) == 30
        assert table.loc[part, "group"].nunique() == 21
        assert abs((table.loc[part, "label"] == "class 0").sum() - 15) <= 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=5, max_size=40), st.integers(0, 99))
def test_more_groups_never_cost_more_than_a_hundredth_of_the_shares(sizes, seed):
    table = of_groups(sizes)
    groups, labels = table["group"].to_numpy(), (table["label"] == "class 1").to_numpy(np.int64)
    shares = np.array([0.7, 0.15, 0.15])

    def off(parts):
        """The largest gap to the wanted share, of all clips and of each class."""
        every = [parts, *(parts[labels == label] for label in set(labels))]
        found = [np.bincount(some, minlength=3) / len(some) - shares for some in every]
        return np.sqrt(np.square(found).sum())

    now = cuts.assign_groups(groups, labels, shares, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuts, "NEAR", 0.0)
        nearest = cuts.assign_groups(groups, labels, shares, seed)
    assert off(now) <= off(nearest) + 0.04
    counts = [sorted(len(set(groups[p == k])) for k in (1, 2)) for p in (now, nearest)]
    assert counts[0] >= counts[1]
