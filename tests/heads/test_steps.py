"""Heads that label every step: annotations, files that stay whole, training, figures worked by hand."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import store
from flows.train.annotated import annotated_videos, read_annotations
from pipeline.errors import ConfigError
from pipeline.heads.config import TrainConfig
from pipeline.heads.lean import keras
from pipeline.heads.measures import predicted_classes
from pipeline.heads.saved import load_run
from pipeline.heads.steps import measures
from pipeline.heads.steps.annotations import BACKGROUND
from pipeline.heads.steps.compiling import TRUNCATED, step_loss
from pipeline.heads.steps.feeding import (
    batched,
    padded_length,
    sequences,
    stretches,
    training_batches,
)
from pipeline.heads.steps.inference import predict_steps, predict_videos
from pipeline.heads.steps.measures import Span
from pipeline.heads.steps.segments import borders, predicted_spans
from pipeline.heads.steps.splitting import split_videos
from pipeline.heads.training import train
from pipeline.heads.zoo import build_head
from tests.heads.videos import LABELS, RATE, STEPS, long_store, timeline_of

SMALL = {
    "segmenter": {"units": 12, "project": 12, "depth": 1},
    "mstcn": {"units": 12, "depth": 4, "stages": 2},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """(store, annotations)."""
    url = tmp_path_factory.mktemp("steps") / "long.zarr"
    return str(url), long_store(url)


@pytest.fixture(scope="module")
def clips(made: tuple[str, Path]) -> Any:
    return annotated_videos(made[0], str(made[1]))


def annotated(made: tuple[str, Path], folder: Path, *lines: str, **options: Any) -> Any:
    path = folder / "a.csv"
    path.write_text("\n".join(["path,start,end,label", *lines]) + "\n")
    return read_annotations(str(path), store.open(made[0]), **options)


# Annotations


def test_each_step_has_the_label_that_applies_at_its_time_in_the_whole_file(clips: Any) -> None:
    assert clips.classes == (BACKGROUND, *LABELS)
    assert len(clips) == 12
    for number, video in enumerate(clips.videos):
        spans = timeline_of(number, 40 + number % 3)
        assert len(video) == (40 + number % 3) * RATE
        for time_s, targets in zip(video.times, video.targets, strict=True):
            applies = [name for start, end, name in spans if start <= time_s < end]
            (k,) = np.flatnonzero(targets)
            assert clips.classes[k] == (applies or [BACKGROUND])[0]


def test_steps_are_those_of_the_rows_put_end_to_end_without_padding(
    made: tuple[str, Path], clips: Any
) -> None:
    source = store.open(made[0])
    table = source.table()
    for i in (1, 7):
        rows = table.index[table["file"] == clips.videos[i].file].to_numpy()
        read = source.load(rows)
        np.testing.assert_array_equal(clips.features_of(i), read.features[read.mask])
        assert clips.videos[i].stretches == ((0, int(read.mask.sum())),)
        assert not read.mask.all()


def test_a_row_that_is_missing_parts_a_file_into_stretches(tmp_path: Path) -> None:
    url = tmp_path / "gap.zarr"
    path = long_store(url, files=4)
    with store.Writer.acquire(str(url), owner="test") as writer:
        writer.mark([2], store.FAILED)
        writer.flush()
    with pytest.warns(store.StoreWarning):
        clips = annotated_videos(str(url), str(path))
    assert clips.videos[0].stretches == ((0, 2 * STEPS), (2 * STEPS, 9 * STEPS))
    assert clips.videos[1].stretches == ((0, len(clips.videos[1])),)
    assert clips.left_out == {"failed": 1}
    assert [len(part) for part in stretches(clips, np.array([0]))] == [16, 56]


def test_overlapping_annotations_are_refused_with_both_lines_unless_several_may_apply(
    made: tuple[str, Path], tmp_path: Path
) -> None:
    lines = (
        "long/00.mp4,1,9,run",
        "long/01.mp4,0,4,run",
        "long/00.mp4,2,3,wave",
        "00,8.5,0:12,jump",
    )
    with pytest.raises(ConfigError, match=r"run 1 to 9 s \(line 2\) and wave 2 to 3 s \(line 4\)"):
        annotated(made, tmp_path, *lines)
    # A long one overlaps what begins after a short one has ended.
    with pytest.raises(
        ConfigError, match=r"run 1 to 9 s \(line 2\) and jump 8.5 to 12 s \(line 3\)"
    ):
        annotated(made, tmp_path, lines[0], lines[3])
    found = annotated(made, tmp_path, *lines, multi_label=True)
    assert [each.label for each in found.by_file["long/00.mp4"]] == ["run", "wave", "jump"]
    touching = annotated(made, tmp_path, "long/00.mp4,1,9,run", "long/00.mp4,9,,wave")
    assert touching.by_file["long/00.mp4"][1].end_s == np.inf


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("long/01.mp4,5,5,run", r"a.csv, line 3: the part from 5 to 5 is empty"),
        ("long/01.mp4,5,4,run", r"a.csv, line 3: the part from 5 to 4 is empty"),
        ("long/01.mp4,soon,4,run", r"a.csv, line 3: the time 'soon' is no number"),
        ("long/01.mp4,-1,4,run", r"a.csv, line 3: a part.s bound is -1.0"),
        ("long/01.mp4,3,4,", r"a.csv, line 3: the span from 3 to 4 has no label"),
    ],
)
def test_a_span_that_cannot_be_is_refused_with_its_line(
    made: tuple[str, Path], tmp_path: Path, line: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        annotated(made, tmp_path, "long/00.mp4,1,2,run", line)


def test_videos_that_the_store_does_not_hold_are_listed_and_none_at_all_is_an_error(
    made: tuple[str, Path], tmp_path: Path
) -> None:
    found = annotated(made, tmp_path, "x/00.mp4,1,2,run", "other.mp4,1,2,run", "long/02.mp4,,,")
    # A path as another folder has it ends in the file's name; a line without a label is an empty video.
    assert set(found.by_file) == {"long/00.mp4", "long/02.mp4"}
    assert found.by_file["long/02.mp4"] == ()
    assert found.unknown == ("other.mp4 (line 3)",)
    with pytest.raises(ConfigError, match=r"annotates no video of the store \(b.mp4 \(line 2\)\)"):
        annotated(made, tmp_path, "b.mp4,1,2,run")
    (tmp_path / "b.csv").write_text("path,label\nlong/00.mp4,run\n")
    with pytest.raises(ConfigError, match="has no column start, end"):
        read_annotations(str(tmp_path / "b.csv"), store.open(made[0]))


def test_activitynets_json_says_the_same_as_a_csv(made: tuple[str, Path], tmp_path: Path) -> None:
    database = {
        "00": {"subset": "training", "annotations": [{"segment": [1, 4.5], "label": "run"}]},
        "v_01": {"annotations": []},
    }
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"database": database}))
    found = read_annotations(str(path), store.open(made[0]))
    (only,) = found.by_file["long/00.mp4"]
    assert (only.start_s, only.end_s, only.label) == (1, 4.5, "run")
    assert found.unknown == ("v_01.mp4 (database.v_01)",)


# Files stay whole


def test_no_split_or_fold_tears_a_file_or_a_group_apart(tmp_path: Path) -> None:
    url = tmp_path / "grouped.zarr"
    path = long_store(url, groups=5)
    # One row of another group ties the groups of its file together.
    with store.Writer.acquire(str(url), owner="test") as writer:
        writer.set([1], group="g3")
        writer.flush()
    clips = annotated_videos(str(url), str(path))
    group = clips.table["group"].to_numpy()
    assert group[0] == group[3]
    assert len(set(group)) == 4
    for seed in range(8):
        (split,) = split_videos(clips, TrainConfig(head="segmenter", seed=seed))
        parts = [clips.positions(getattr(split, name)) for name in ("train", "validation", "test")]
        assert sorted(np.concatenate(parts)) == list(range(12))
        assert sum(len(set(group[part])) for part in parts) == 4
        for how, count in (("kfold", 3), ("leave_one_group_out", 4)):
            config = TrainConfig(head="segmenter", split=how, folds=3, seed=seed)
            folds = split_videos(clips, config)
            assert len(folds) == count
            assert sorted(np.concatenate([fold.test for fold in folds])) == sorted(clips.rows)
            for fold in folds:
                parts = [clips.positions(p) for p in (fold.train, fold.validation, fold.test)]
                assert sorted(np.concatenate(parts)) == list(range(12))
                assert sum(len(set(group[part])) for part in parts) == 4
        (alone,) = split_videos(clips, TrainConfig(head="segmenter", split="stratified", seed=seed))
        rows = np.concatenate([alone.train, alone.validation, alone.test])
        assert sorted(rows) == sorted(clips.rows)


def test_a_split_column_that_tears_a_file_apart_is_refused(tmp_path: Path) -> None:
    url = tmp_path / "given.zarr"
    path = long_store(url, files=6)
    table = store.open(str(url)).table()
    names = ["train", "train", "train", "train", "val", "test"]
    with store.Writer.acquire(str(url), owner="test") as writer:
        parts = [names[int(file[5:7])] for file in table["file"]]
        writer.set(table.index.to_numpy(), split=parts)
        writer.flush()
    clips = annotated_videos(str(url), str(path))
    (split,) = split_videos(clips, TrainConfig(head="segmenter"))
    assert split.how == "given"
    assert [clips.positions(part).tolist() for part in (split.train, split.validation, split.test)] == [
        [0, 1, 2, 3], [4], [5],
    ]  # fmt: skip
    with store.Writer.acquire(str(url), owner="test") as writer:
        writer.set([0], split="test")
        writer.flush()
    clips = annotated_videos(str(url), str(path))
    with pytest.raises(ConfigError, match=r"the rows of long/00.mp4 into test and train"):
        split_videos(clips, TrainConfig(head="segmenter"))


# Sequences


def test_videos_lie_in_rows_of_their_own_and_nothing_of_one_reaches_another(clips: Any) -> None:
    at = np.arange(len(clips))
    once = [
        (part.position, part.first)
        for batch in batched(stretches(clips, at), 5, (3, 1))
        for part in batch
    ]
    assert sorted(once) == [(i, 0) for i in at]
    assert once != sorted(once)
    assert once == [
        (part.position, part.first)
        for batch in batched(stretches(clips, at), 5, (3, 1))
        for part in batch
    ]
    batch = stretches(clips, at[:3])
    features, mask = sequences(clips, batch, 4)
    assert mask.sum(axis=1).tolist() == [80, 82, 84, 80]
    assert features.shape[1] == padded_length(84) == 96
    np.testing.assert_array_equal(features[1, :82], clips.features_of(1))
    assert not features[~mask].any()


@pytest.mark.parametrize(("videos", "updates"), [(1, 6), (2, 6), (4, 8), (6, 6), (12, 12)])
def test_an_epoch_of_few_videos_has_several_updates_and_every_video_as_often(
    clips: Any, videos: int, updates: int
) -> None:
    def epoch(number: int) -> list[bytes]:
        batches = training_batches(
            clips, np.arange(videos), 1, (0, number), fill=True,
            weights=np.ones(len(clips.classes), np.float32), label_smoothing=0.0,
        )  # fmt: skip
        return [features.tobytes() for features, *_ in batches]

    batches = epoch(1)
    assert len(batches) == updates
    assert set(Counter(batches).values()) == {updates // videos}
    assert epoch(1) == batches
    assert videos < 4 or epoch(2) != batches


@pytest.mark.parametrize("name", [pytest.param("segmenter", marks=pytest.mark.long), "mstcn"])
def test_a_video_has_the_same_probabilities_alone_and_beside_a_longer_one(
    clips: Any, name: str
) -> None:
    head = build_head(name, None, clips.shape, 4, SMALL[name], seed=1)
    head.run_eagerly = True
    together = predict_videos(head, clips, np.array([2, 0, 1]), 3)
    for i, found in zip((2, 0, 1), together, strict=True):
        alone = predict_steps(head, clips.features_of(i))
        assert alone.shape == (len(clips.videos[i]), 4)
        np.testing.assert_allclose(found, alone, atol=2e-6)


def test_the_published_mstcn_has_its_number_of_parameters() -> None:
    # Per stage: inputs · 64 + 64, ten layers of a convolution and a product, 64 · classes + classes.
    layers, ends = 10 * (3 * 64 * 64 + 64 + 64 * 64 + 64), 64 * 19 + 19
    count = (2048 * 64 + 64 + layers + ends) + 3 * (19 * 64 + 64 + layers + ends)
    published = build_head("mstcn", None, (2048,), 19, {"preset": "published"})
    assert published.count_params() == count


def test_the_loss_is_that_of_the_paper_over_real_steps_of_all_stages() -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(3), (2, 2, 5)).astype(np.float32)  # batch, stages, steps
    p[0, 0, 1] = (1 - 2e-6, 1e-6, 1e-6)  # a change beyond the truncation
    labels, mask = rng.integers(0, 3, (2, 5)), np.arange(5) < np.array([[5], [3]])
    target = np.concatenate([np.eye(3)[labels], mask[..., None]], axis=-1).astype(np.float32)
    wanted = 0.0
    for stage in range(2):
        log = np.log(p[:, stage])
        entropy = [-log[b, t, labels[b, t]] for b in range(2) for t in range(5) if mask[b, t]]
        pairs = [(b, t) for b in range(2) for t in range(1, 5) if mask[b, t]]
        change = [np.minimum(np.abs(log[b, t] - log[b, t - 1]), TRUNCATED) ** 2 for b, t in pairs]
        wanted += np.mean(entropy) + 0.15 * np.mean(change)
    loss = step_loss(keras.ops.array(target), keras.ops.array(p), smoothing=0.15, multi_label=False)
    assert float(loss) == pytest.approx(wanted, rel=1e-5)
    p[1, :, 3:] = 0.999  # padding
    again = step_loss(
        keras.ops.array(target), keras.ops.array(p), smoothing=0.15, multi_label=False
    )
    assert float(again) == pytest.approx(wanted, rel=1e-5)


# Training

CONFIG = TrainConfig(head="segmenter", options=SMALL["segmenter"], epochs=25, seed=2, train_batch=2)


@pytest.fixture(scope="module")
def run(clips: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("runs") / "segmenter"
    return folder, train(clips, CONFIG, folder)


def test_a_trained_segmenter_finds_segments_of_videos_that_it_has_not_seen(
    run: tuple[Path, dict[str, Any]], clips: Any
) -> None:
    folder, metrics = run
    test = metrics["test"]
    assert test["frame_accuracy"] > 0.8 > 2 * metrics["baseline"]["majority"] * 0.5
    assert test["frame_accuracy"] == pytest.approx(test["top1"])
    assert {"edit", "f1@10", "f1@25", "f1@50", "map@0.3", "map@0.7", "overlap"} <= set(test)
    assert metrics["labels"] == "steps"
    written = json.loads((folder / "metrics.json").read_text())
    assert written["test"]["f1@50"] == test["f1@50"] > 0.6
    for name in ("curves.png", "confusion.png", "model.png", "strips.png", "steps.csv"):
        assert (folder / name).stat().st_size > 1000
    config = json.loads((folder / "config.json").read_text())
    tested = config["split"]["test"]["video_ids"]
    steps = pd.read_csv(folder / "steps.csv")
    steps = steps[steps["part"] == "test"]
    assert set(steps["video_id"]) == set(tested)
    assert (steps["label"] == steps["predicted"]).mean() == pytest.approx(test["top1"])
    assert not set(tested) & set(config["split"]["train"]["video_ids"])


def test_a_saved_run_gives_the_probabilities_that_were_written(
    run: tuple[Path, dict[str, Any]], clips: Any
) -> None:
    loaded = load_run(run[0])
    assert loaded.per_step
    assert not loaded.multi_label
    steps = pd.read_csv(run[0] / "steps.csv")
    name = steps[steps["part"] == "test"]["video_id"].iloc[0]
    mine = steps[steps["video_id"] == name]
    place = [video.file for video in clips.videos].index(name)
    p = predict_steps(loaded.model, clips.features_of(place))
    columns = [f"p:{label}" for label in loaded.classes]
    np.testing.assert_allclose(mine[columns].to_numpy(), p, atol=2e-4)
    with pytest.raises(ConfigError, match=r"labels every step of a video.*--timeline"):
        loaded.predict(np.zeros((1, STEPS, 6)), np.ones((1, STEPS), bool))


@pytest.mark.long
def test_an_interrupted_training_resumes_to_the_same_head_and_knows_other_annotations(
    clips: Any, made: tuple[str, Path], tmp_path: Path
) -> None:
    # Begun before the last file was annotated, with a label that no other has.
    lines = made[1].read_text().splitlines()
    (tmp_path / "first.csv").write_text("\n".join(x for x in lines if "long/11" not in x) + "\n")
    (tmp_path / "all.csv").write_text("\n".join([*lines, "long/11.mp4,39.5,40,bow"]) + "\n")
    more = annotated_videos(made[0], str(tmp_path / "all.csv"))
    assert len(more.classes) == len(clips.classes) + 1
    clips = annotated_videos(made[0], str(tmp_path / "first.csv"))
    config = dataclasses.replace(CONFIG, epochs=4)
    whole = train(clips, config, tmp_path / "whole")

    def press(report: Any) -> None:
        if report.epoch == 2:
            raise KeyboardInterrupt

    stopped = train(clips, config, tmp_path / "run", on_epoch=press)
    assert stopped["stopped"]
    text = "\n".join(lines).replace(",run", ",wave", 1)
    (tmp_path / "other.csv").write_text(text + "\n")
    other = annotated_videos(made[0], str(tmp_path / "other.csv"))
    with pytest.raises(ConfigError, match=r"1 clips? (with another label|relabelled)|label"):
        train(other, config, tmp_path / "run", resume=True)
    again = train(more, config, tmp_path / "run", resume=True)
    assert again["digest"] == whole["digest"]
    assert again["test"] == whole["test"]


@pytest.mark.long
def test_folds_test_every_video_once_and_one_head_is_fitted_on_all(
    clips: Any, tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, epochs=3, split="kfold", folds=3)

    def press(report: Any) -> None:
        if (report.fold, report.epoch) == (1, 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="fold 2 of 3"):
        train(clips, config, tmp_path / "run", on_epoch=press)
    metrics = train(clips, config, tmp_path / "run", resume=True)
    whole = train(clips, config, tmp_path / "whole")
    assert metrics["digest"] == whole["digest"]
    assert metrics["test"] == whole["test"]
    assert metrics["test"]["videos"] == 12
    assert len(metrics["folds"]) == 3
    low, high = metrics["test"]["top1_interval"]
    assert low < metrics["test"]["top1"] < high
    assert metrics["test"]["groups"] == 12
    steps = pd.read_csv(tmp_path / "run" / "steps.csv")
    assert len(steps) == sum(map(len, clips.videos)) == metrics["test"]["steps"]
    confusion = pd.read_csv(tmp_path / "run" / "confusion.csv", index_col=0)
    assert confusion.to_numpy().sum() == len(steps)
    p = predict_steps(load_run(tmp_path / "run").model, clips.features_of(0))
    assert np.isfinite(p).all()


@pytest.mark.long
def test_seeds_are_values(clips: Any, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, epochs=1)
    digests = [
        train(clips, dataclasses.replace(config, seed=seed), tmp_path / f"{n}")["digest"]
        for n, seed in enumerate((5, 5, 6))
    ]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.long
def test_several_labels_at_a_time_are_trained_as_sigmoids(
    made: tuple[str, Path], tmp_path: Path
) -> None:
    lines = made[1].read_text().splitlines()
    # Whatever is a jump is a move, too.
    more = [line.replace("jump", "move") for line in lines if line.endswith("jump")]
    (tmp_path / "a.csv").write_text("\n".join([*lines, *more]) + "\n")
    clips = annotated_videos(made[0], str(tmp_path / "a.csv"), multi_label=True)
    assert clips.classes == ("jump", "move", "run", "wave")
    options = SMALL["segmenter"] | {"multi_label": True}
    config = dataclasses.replace(CONFIG, options=options, epochs=15)
    metrics = train(clips, config, tmp_path / "run")
    assert metrics["test"]["step_map"] > 0.8
    assert metrics["test"]["map@0.5"] > 0.4
    loaded = load_run(tmp_path / "run")
    p = predict_steps(loaded.model, clips.features_of(0))
    assert (p.sum(axis=1) > 1.2).any()
    np.testing.assert_allclose(p[:, 0], p[:, 1], atol=0.4)
    spans = pd.read_csv(tmp_path / "run" / "segments.csv")
    assert {"jump", "move"} <= set(spans[spans["source"] == "prediction"]["label"])


def test_heads_annotations_and_settings_that_do_not_go_together_are_one_sentence(
    clips: Any, tmp_path: Path
) -> None:
    from tests.heads.sources import rising_or_falling

    for source, config, message in (
        (rising_or_falling(), TrainConfig(head="segmenter"), "add --annotations FILE"),
        (clips, TrainConfig(head="gru"), "the head gru labels clips: use segmenter, mstcn"),
        (clips, TrainConfig(head="auto"), "name segmenter or mstcn"),
        (clips, TrainConfig(head="mstcn", mixup=0.2), "mixup is 0.2, which the head mstcn"),
        (
            clips,
            TrainConfig(head="mstcn", test_set="x"),
            "test_set is x, which the head mstcn",
        ),
        (clips, TrainConfig(head="mstcn", options={"multi_label": True}), "give --multi-label"),
    ):
        with pytest.raises(ConfigError, match=message):
            train(source, config, tmp_path / "none")
        assert not (tmp_path / "none").exists()


# Figures, worked by hand


def test_runs_edit_and_f1_are_those_worked_by_hand() -> None:
    true = list("AAAABBBBCC")
    said = list("AABBBBBBAC")
    # Segments A B C and A B A C: one too many of four.
    assert measures.edit_score("ABAC", "ABC") == 0.75
    assert measures.edit_score("", "A") == 0
    assert measures.edit_score("AB", "BA") == 0
    runs_t, runs_s = measures.runs_of(true), measures.runs_of(said)
    assert runs_t == [("A", 0, 4), ("B", 4, 8), ("C", 8, 10)]
    # Overlaps: A 2/4, B 4/6, A (8 to 9) 0 with the first A, C 1/2.
    assert measures.hits_at(runs_s, runs_t, 0.5) == (3, 1, 0)
    assert measures.hits_at(runs_s, runs_t, 0.6) == (1, 3, 2)
    figures = measures.segmentation([said], [true])
    assert figures["frame_accuracy"] == 0.7
    assert figures["edit"] == 0.75
    assert figures["f1@50"] == pytest.approx(2 * 3 / (2 * 3 + 1))
    assert figures["f1@10"] == pytest.approx(6 / 7)
    # A second prediction of a segment that is found already is wrong, and background does not count.
    assert measures.hits_at([("A", 0, 3), ("A", 3, 4)], [("A", 0, 4)], 0.25) == (1, 1, 0)
    bare = measures.segmentation([list("--A-")], [list("-AA-")], background="-")
    assert (bare["frame_accuracy"], bare["edit"], bare["f1@50"]) == (0.75, 1, 1)
    assert measures.segmentation([list("--")], [list("-A")], background="-")["f1@10"] == 0


def test_average_precision_is_that_worked_by_hand() -> None:
    def span(
        start: float, end: float, score: float = 1, video: str = "v", label: str = "A"
    ) -> Span:
        return Span(video=video, start=start, end=end, label=label, score=score)

    true = [span(0, 10), span(20, 30), span(0, 10, video="w")]
    said = [
        span(0, 8, 0.9),  # 0.8 of the first
        span(1, 10, 0.8),  # the first again: wrong
        span(0, 4, 0.7, video="w"),  # 0.4: right up to 0.4
        span(22, 31, 0.6),  # 8 / 11
    ]
    # At 0.5: right, wrong, wrong, right of three. Precision 1 at recall 1/3, 1/2 at 2/3, 0 beyond.
    assert measures.average_precision(said, true, 0.5) == pytest.approx(1 / 3 + 0.5 / 3)
    # At 0.4: right, wrong, right, right: 1, then 3/4 from recall 2/3 and at 1.
    assert measures.average_precision(said, true, 0.4) == pytest.approx(1 / 3 + 0.75 * 2 / 3)
    figures = measures.detection([*said, span(0, 1, label="B")], [*true, span(0, 5, label="B")])
    assert figures["map@0.4"] == pytest.approx((1 / 3 + 0.75 * 2 / 3 + 0) / 2)
    assert figures["map"] == pytest.approx(np.mean([figures[f"map@0.{n}"] for n in range(3, 8)]))
    assert np.isnan(measures.detection(said, [])["map@0.3"])
    # Frame-wise, as with several labels: right at ranks 1 and 3 of two.
    p = np.array([[0.9], [0.8], [0.7], [0.1]], np.float32)
    targets = np.array([[True], [False], [True], [False]])
    assert measures.step_map(p, targets) == pytest.approx((1 + 2 / 3) / 2)
    # Three are said, two of them right: precision 2/3, recall 1.
    assert measures.several(p, targets)["macro_f1"] == pytest.approx(0.8)
    six = np.array([[0.9, 0.8, 0.7, 0.6, 0.5, 0.1]], np.float32)
    assert (
        measures.several(six, np.array([[True, False, False, False, False, True]]))["top5"] == 0.5
    )


def test_segments_begin_and_end_halfway_between_steps(clips: Any) -> None:
    np.testing.assert_allclose(borders(np.array([0.25, 0.75, 1.25]), 0.5), [0, 0.5, 1.0, 1.5])
    video = clips.videos[0]
    p = video.targets.astype(np.float32) * 0.5 + 0.1
    spans = predicted_spans(video, p, clips.classes, multi_label=False)
    wanted = timeline_of(0)
    assert [span.label for span in spans] == [label for *_, label in wanted]
    for span, (start, end, _) in zip(spans, wanted, strict=True):
        assert (span.start, span.end) == (start, end)
        assert span.score == pytest.approx(0.6)
    assert (predicted_classes(p) == video.targets.argmax(axis=1)).all()
