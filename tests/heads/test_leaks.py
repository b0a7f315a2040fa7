"""A leak check finds what is planted, and claims nothing of what a group or a test clip alone has."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from pipeline.errors import ConfigError
from pipeline.heads import leaks
from pipeline.heads.clips import load_clips
from pipeline.heads.config import TrainConfig
from pipeline.heads.leaks import Hint, check_leaks, file_hints
from pipeline.heads.plan import make_splits
from pipeline.heads.training import train
from tests.heads.sources import rising_or_falling

DRAWS = False
CONFIG = TrainConfig(head="frame_average", split="kfold", folds=3, repeats=2, baselines=False)


@pytest.fixture(scope="module", autouse=True)
def few_trees():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leaks, "TREES", 30)
        yield


@pytest.fixture(scope="module")
def clips():
    source = rising_or_falling(clips=96, groups=24)
    falls = (source.frame["label"] == "fall").to_numpy()
    rng = np.random.default_rng(0)
    source.frame = source.frame.assign(
        size_bytes=np.where(falls, 30_000, 50_000) + rng.integers(0, 9_000, 96),
        fps=np.float32(25),
        frames_decoded=rng.integers(50, 100, 96),
        width=320,
        height=240,
        pixel_aspect=1.0,
    )
    return load_clips(source)


@pytest.fixture(scope="module")
def splits(clips):
    return make_splits(clips, CONFIG)


def hint(values, known=None):
    values = np.asarray(values, np.float32)
    values = values[:, None] if values.ndim == 1 else values
    known = np.ones(len(values), bool) if known is None else known
    return Hint(name="border", values=values, known=known)


def check(clips, splits, *hints):
    return check_leaks(clips, splits, hints)["checks"]


def test_a_file_size_for_each_label_is_caught_and_what_tells_nothing_is_not(clips, splits):
    record = check_leaks(clips, splits, file_hints(clips.table))
    found = {each["name"]: each for each in record["checks"]}
    assert found["file_size"]["top1"] > 0.95
    assert found["file_size"]["lead_interval"][0] > 0.3
    assert found["file"]["top1"] > 0.9
    assert {each["name"] for each in leaks.telling(record)} >= {"file_size", "file"}
    for name in ("duration", "frame_rate", "picture_shape"):
        assert abs(found[name]["top1"] - 0.5) < 0.15
        assert not found[name]["lead_interval"][0] > 0
    assert (record["groups"], record["clips"], record["folds"], record["repeats"]) == (24, 96, 3, 2)
    assert "file size" in leaks.leak_sentence(record)


def test_what_names_the_group_is_no_leak_under_folds_by_groups(splits):
    """Every group has one label here: whoever had seen a clip of it would know the others'."""
    source = rising_or_falling(clips=96, groups=24)
    number = np.arange(96) // 4
    source.frame["group"] = [f"g{n:02d}" for n in number]
    label = np.random.default_rng(1).permutation(np.arange(24) % 2)[number]
    source.frame["label"] = np.array(["fall", "rise"])[label]
    clips = load_clips(source)
    own = make_splits(clips, CONFIG)
    of_group = np.random.default_rng(2).normal(0, 1, (24, 8))[number]
    [found] = check(clips, own, hint(of_group))
    assert not (found["lead_interval"][0] > 0)
    everyone = np.arange(96)
    for split in own:
        mixed = dataclasses.replace(split, train=everyone, validation=everyone[:0])
        [seen] = check(clips, [mixed], hint(of_group))
        assert seen["top1"] == 1  # so the hint does name the group


def test_no_test_clip_teaches_the_check(clips, splits):
    """A column that tells the label of the fold's test clips alone, and nothing of the others."""
    split = splits[0]
    shouting = np.random.default_rng(3).normal(0, 1, 96)
    test = clips.positions(split.test)
    shouting[test] = 10 * clips.labels[test] - 5
    quiet = np.where(np.isin(np.arange(96), test), 0, shouting)
    found, silent = check(clips, [split], hint(shouting), hint(quiet))
    assert abs(found["top1"] - 0.5) < 0.25
    assert silent["top1"] is not None
    teaches = dataclasses.replace(split, train=split.test, validation=split.test[:0])
    assert check(clips, [teaches], hint(shouting))[0]["top1"] == 1


def test_clips_that_could_not_be_read_are_left_out_and_counted(clips, splits):
    known = np.arange(96) % 4 != 0
    [found] = check(clips, splits, hint(clips.labels, known))
    assert found["clips"] == 72
    assert found["top1"] == 1
    [nothing] = check(clips, splits, Hint.unknown("border", 96, "no videos"))
    assert (nothing["top1"], nothing["clips"], nothing["reason"]) == (None, 0, "no videos")
    record = check_leaks(clips, splits, [Hint.unknown("border", 96, "no videos")])
    assert "border strip not checked" in leaks.leak_sentence(record)


def test_equal_folds_give_equal_figures_and_every_fold_counts(clips, splits):
    first, again = (check_leaks(clips, splits, file_hints(clips.table)[:2]) for _ in range(2))
    assert first == again
    assert first["majority"] == pytest.approx(0.5)


def test_a_record_is_found_by_every_run_of_the_same_test_clips_and_no_other(clips, tmp_path):
    config = dataclasses.replace(CONFIG, folds=2, repeats=1)
    record = check_leaks(clips, make_splits(clips, config), file_hints(clips.table)[:2])
    file = leaks.record_leaks(tmp_path, record)
    train(clips, config, tmp_path / "one")
    assert leaks.recorded_leaks(tmp_path / "one")["checks"] == record["checks"]
    # Another stream of the same clips, whose features and fingerprint are others.
    other = dataclasses.replace(clips, fingerprint="e" * 64, features=clips.features * 2)
    assert leaks.tested_hash(other, make_splits(other, config)) == record["tested"]
    for more in ({"seed": 3}, {"repeats": 2}, {"folds": 3}):
        elsewhere = make_splits(clips, dataclasses.replace(config, **more))
        assert leaks.tested_hash(clips, elsewhere) != record["tested"]
    labels = clips.table["label"].where(clips.table.index > 0, "rise")
    relabelled = dataclasses.replace(clips, table=clips.table.assign(label=labels))
    assert leaks.tested_hash(relabelled, make_splits(clips, config)) != record["tested"]
    file.write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"damaged: make it again with `pixels-once leaks"):
        leaks.recorded_leaks(tmp_path / "one")


def test_a_store_that_knows_nothing_of_its_files_says_so():
    table = pd.DataFrame({"video_id": ["a", "b"], "label": ["x", "y"], "size_bytes": [0, 0]})
    assert all(not h.known.any() and h.reason for h in file_hints(table))
