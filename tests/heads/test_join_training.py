"""Heads on joined streams: late, each stream's head with its weight; early, one head that reads all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.errors import ConfigError
from pipeline.heads.clips import Clips, load_clips
from pipeline.heads.compare import leaderboards, paired_difference
from pipeline.heads.compiling import compiled_head
from pipeline.heads.config import TrainConfig
from pipeline.heads.export import _probe, for_inference
from pipeline.heads.identity import Identity
from pipeline.heads.joined_source import JoinedSource
from pipeline.heads.late import fit_split, stream_clips
from pipeline.heads.plan import require_same_run, resolve
from pipeline.heads.saved import load_run
from pipeline.heads.shuffling import with_steps_shuffled
from pipeline.heads.splits import make_split
from pipeline.heads.statistics import masked_statistics
from pipeline.heads.streams import streams_in
from pipeline.heads.training import train
from pipeline.heads.weighing import pooled, weigh
from tests.heads.sources import rising_or_falling
from tests.heads.streams import TimedSource

STEPS, CLIPS, GROUPS = 6, 72, 18


def streams(*, noise: float = 0.5, seed: int = 0) -> list[TimedSource]:
    """Three streams of clips of four classes: one tells a first bit, one a second, one says nothing."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(CLIPS) % 4)
    frame = rising_or_falling(clips=CLIPS, steps=STEPS, groups=GROUPS).frame
    frame = frame.assign(
        label=[f"class {label}" for label in labels],
        sha256=[f"{i:064x}" for i in range(CLIPS)],
        frames_decoded=48,
        fps=24.0,
        row=np.arange(CLIPS),
    ).drop(columns="row")
    frames = np.tile(np.arange(STEPS, dtype=np.int32) * 4, (CLIPS, 1))
    made = []
    for name, bit, channels in (("first", 0, 5), ("second", 1, 3), ("blank", None, 4)):
        features = rng.normal(0, 1, (CLIPS, STEPS, channels))
        if bit is not None:
            features[..., 0] = (labels[:, None] >> bit & 1) * 2 + rng.normal(
                0, noise, (CLIPS, STEPS)
            )
        made.append(
            TimedSource(
                features.astype(np.float16),
                np.ones((CLIPS, STEPS), bool),
                frame.copy(),
                fingerprint=name[0] * 64,
                spec={"backbone": name, "sampling": {"steps": STEPS}},
                frames=frames,
                url=f"{name}.zarr",
            )
        )
    return made


@pytest.fixture(scope="module")
def clips() -> Clips:
    return load_clips(JoinedSource(streams()))


@pytest.fixture(scope="module")
def runs(clips: Clips, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pyramid on all streams, late and early, by folds and on one split, and one on the first alone."""
    folder = tmp_path_factory.mktemp("runs")
    config = TrainConfig(head="pyramid", split="grouped", baselines=False)
    train(clips, config, folder / "late")
    train(
        clips,
        TrainConfig(head="pyramid", split="grouped", baselines=False, join="early"),
        folder / "early",
    )
    train(load_clips(streams()[0]), config, folder / "first")
    return folder


def metrics_of(run: Path) -> dict:
    return json.loads((run / "metrics.json").read_text())


def test_late_gives_each_stream_its_weight_and_leaves_out_the_one_that_says_nothing(runs) -> None:
    found = metrics_of(runs / "late")["streams"]
    assert [stream["name"] for stream in found] == ["first", "second", "blank"]
    first, second, blank = (stream["weight"] for stream in found)
    assert blank == 0
    assert first > 0.2
    assert second > 0.2
    assert first + second == pytest.approx(1)
    alone = max(stream["top1"] for stream in found)
    assert metrics_of(runs / "late")["test"]["top1"] > alone
    assert metrics_of(runs / "early")["test"]["top1"] > alone


def test_the_saved_head_is_the_weighted_geometric_mean_of_the_streams_heads(
    clips: Clips, runs: Path
) -> None:
    run = load_run(runs / "late")
    assert [stream.name for stream in run.streams] == ["first", "second", "blank"]
    assert run.shape == (12,)
    read = clips.source.load()
    joined = run.predict(read.features, read.mask)
    weights = [s["weight"] for s in run.metrics["streams"]]
    heads = [layer for layer in run.model.layers if layer.name.startswith("head_")]
    total = np.zeros(joined.shape)
    for head, weight, channels in zip(heads, weights, (slice(0, 5), slice(5, 8)), strict=False):
        inputs = {"features": read.features[..., channels].astype(np.float32), "mask": read.mask}
        shares = np.asarray(head.predict_on_batch(inputs), np.float64)
        total += weight * np.log(0.999 * shares + 0.001 / 4)
    shares = np.exp(total)
    np.testing.assert_allclose(joined, shares / shares.sum(axis=1, keepdims=True), atol=1e-4)
    # What a stream that is left out holds makes no difference.
    other = read.features.copy()
    other[..., 8:] = 7
    np.testing.assert_array_equal(run.predict(other, read.mask), joined)


def test_a_run_records_every_stream_and_the_digests_of_each(clips: Clips, runs: Path) -> None:
    config = json.loads((runs / "late" / "config.json").read_text())
    assert config["store"]["url"] == "first.zarr+second.zarr+blank.zarr"
    assert [each["fingerprint"] for each in config["streams"]] == ["f" * 64, "s" * 64, "b" * 64]
    assert config["fingerprint"] == clips.fingerprint
    identity = Identity.load(runs / "late")
    assert identity is not None
    assert {"stream_1", "stream_2", "stream_3"} <= set(identity.clips.columns)
    assert identity.settings.get("join") is None
    early = Identity.load(runs / "early")
    assert early is not None
    assert early.settings["join"] == "early"


def test_a_run_is_not_taken_for_the_one_on_changed_or_other_streams(
    clips: Clips, runs: Path
) -> None:
    config = TrainConfig(head="pyramid", split="grouped", baselines=False)
    require_same_run(runs / "late", clips, config)
    changed = streams()
    changed[2].features[5] += 1
    with pytest.raises(ConfigError, match="1 clip has other features"):
        require_same_run(runs / "late", load_clips(JoinedSource(changed)), config)
    with pytest.raises(ConfigError, match=r"streams\.3\.backbone"):
        require_same_run(runs / "late", load_clips(JoinedSource(streams()[:2])), config)
    with pytest.raises(ConfigError, match="join late, now early"):
        require_same_run(
            runs / "late",
            clips,
            TrainConfig(head="pyramid", split="grouped", baselines=False, join="early"),
        )
    with pytest.raises(ConfigError, match="join is early, and the clips are of one store"):
        require_same_run(runs / "first", load_clips(streams()[0]), TrainConfig(join="early"))


def test_runs_on_joins_are_ranked_with_those_on_their_streams(runs: Path) -> None:
    (board,) = leaderboards(runs)
    assert set(board.table["run"]) == {"late", "early", "first"}
    assert set(board.table["features"]) == {"first", "first+second+blank"}
    paired = paired_difference(runs / "late", runs / "first")
    assert paired["difference"] > 0
    assert paired["relabelled"] == 0


@pytest.mark.long
def test_folds_give_the_mean_of_each_stream(two: Clips, tmp_path: Path) -> None:
    config = TrainConfig(head="pyramid", split="kfold", folds=3, baselines=False)
    metrics = train(two, config, tmp_path / "folds")
    assert [len(stream["weights"]) for stream in metrics["streams"]] == [3, 3]
    folds = [metrics_of(tmp_path / "folds" / "folds" / f"{fold:02d}") for fold in range(3)]
    for number, stream in enumerate(metrics["streams"]):
        each = [fold["streams"][number]["top1"] for fold in folds]
        assert stream["top1"] == pytest.approx(np.mean(each))
    assert metrics["streams"][1]["weight"] == 0


GRADIENT = TrainConfig(
    head="mlp",
    options={"units": 16, "second_units": 8, "dropout": 0.1},
    epochs=8,
    lr=0.01,
    split="grouped",
    baselines=False,
)


@pytest.fixture(scope="module")
def two() -> Clips:
    return load_clips(JoinedSource(streams()[1:]))


@pytest.fixture(scope="module")
def trained(two: Clips, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "late"
    train(two, GRADIENT, folder)
    return folder


@pytest.mark.long
def test_a_head_that_trains_by_gradients_is_joined_late_as_well(trained: Path) -> None:
    metrics = metrics_of(trained)
    second, blank = (stream["weight"] for stream in metrics["streams"])
    assert second > blank
    history = pd.read_csv(trained / "history.csv")
    assert set(history["stream"]) == {1, 2}
    assert history["epoch"].tolist() == list(range(1, 1 + len(history)))
    assert all(stream["best_epoch"] >= 1 for stream in metrics["streams"])
    assert (trained / "curves.png").exists()
    assert (trained / "model.png").exists()


@pytest.mark.long
def test_a_training_that_is_stopped_in_a_stream_goes_on_there(
    two: Clips, trained: Path, tmp_path: Path
) -> None:
    import threading

    stop, seen = threading.Event(), []

    def on_epoch(report) -> None:
        seen.append((report.stream, report.epoch))
        if seen[-1] == (2, 3):
            stop.set()

    with pytest.raises(KeyboardInterrupt, match="stopped in stream 2 of 2"):
        train(two, GRADIENT, tmp_path / "late", on_epoch=on_epoch, stop=stop)
    again: list[tuple[int, int]] = []
    train(
        two,
        GRADIENT,
        tmp_path / "late",
        resume=True,
        on_epoch=lambda report: again.append((report.stream, report.epoch)),
    )
    assert (1, 1) not in again
    assert again[0][0] == 2
    assert metrics_of(tmp_path / "late")["digest"] == metrics_of(trained)["digest"]


def test_shuffled_steps_are_in_one_order_in_all_streams_in_memory_and_streamed(
    clips: Clips,
) -> None:
    shuffled = with_steps_shuffled(clips, 3)
    streamed = replace(shuffled, features=None, mask=None)
    everything = np.arange(len(clips))
    (whole, _, _), *_ = shuffled.batches(everything, len(clips))
    assert (whole != clips.features).any()
    for number, stream in enumerate(streams_in(clips)):
        for given in (shuffled, streamed):
            ((alone, _, _),) = stream_clips(given, number).batches(everything, len(clips))
            np.testing.assert_array_equal(alone, whole[..., stream.channels])


def test_an_early_join_projects_every_stream_and_normalises_it_by_its_training_clips(clips) -> None:
    split = make_split(clips.table, how="grouped", seed=0, fractions=(0.7, 0.15, 0.15))
    settings = resolve(
        TrainConfig(head="gru", options={"units": 4, "second_units": 4, "dense": 4}, join="early"),
        [split],
    )
    statistics = masked_statistics(clips, clips.positions(split.train))
    model = compiled_head(clips, settings, statistics)
    widths = [model.get_layer(f"project_{i}").kernel.shape for i in (1, 2, 3)]
    assert widths == [(5, 5), (3, 3), (4, 4)]
    own = [
        masked_statistics(stream_clips(clips, i), clips.positions(split.train)) for i in range(3)
    ]
    np.testing.assert_allclose(statistics.mean, np.concatenate([each.mean for each in own]))
    # A stream of other units makes no difference.
    read = clips.source.load()
    outputs = model.predict_on_batch(
        {"features": read.features.astype("float32"), "mask": read.mask}
    )
    mask = read.mask.copy()
    mask[:, 3:] = False
    short = model.predict_on_batch({"features": read.features.astype("float32"), "mask": mask})
    read.features[:, 3:] = np.nan
    padded = model.predict_on_batch({"features": read.features.astype("float32"), "mask": mask})
    np.testing.assert_array_equal(short, padded)
    assert outputs.shape == (CLIPS, 4)


@pytest.mark.long
def test_a_solved_head_counts_streams_alike_that_are_joined_early(tmp_path: Path) -> None:
    """A wide stream of noise beside a narrow one that tells all: by columns alone it would drown it."""
    narrow, _, _ = streams(noise=0.8)
    rng = np.random.default_rng(1)
    narrow.frame["label"] = np.where(narrow.features[:, :, 0].mean(1) > 1, "up", "down")
    wide = streams()[2]
    wide.features = rng.normal(0, 1, (CLIPS, STEPS, 400)).astype(np.float16)
    wide.frame = narrow.frame.copy()
    config = TrainConfig(
        head="pyramid",
        split="kfold",
        folds=3,
        baselines=False,
        join="early",
        options={"levels": "1"},
    )
    metrics = train(load_clips(JoinedSource([wide, narrow])), config, tmp_path / "early")
    assert metrics["test"]["top1"] > 0.75


@pytest.mark.long
def test_an_export_of_a_late_join_holds_all_its_heads(runs: Path, trained: Path) -> None:
    for folder in (runs / "late", trained):
        run = load_run(folder)
        features, mask = _probe(run)
        assert features.shape[1:] == (STEPS, *run.shape)
        inputs = {"features": features, "mask": mask}
        twin = for_inference(run.model)
        np.testing.assert_allclose(
            twin.predict_on_batch(inputs), run.model.predict_on_batch(inputs), atol=1e-6
        )


@pytest.mark.long
def test_few_clips_are_weighed_alike(tmp_path: Path) -> None:
    few = [
        TimedSource(
            source.features[:8],
            source.mask[:8],
            source.frame.iloc[:8].assign(
                label=["a", "b"] * 4, split=["train"] * 4 + ["validation"] * 2 + ["test"] * 2
            ),
            fingerprint=source.fingerprint,
            spec=source.spec,
            frames=source.frames[:8],
            url=source.url,
        )
        for source in streams()[:2]
    ]
    clips = load_clips(JoinedSource(few))
    split = make_split(clips.table, how="given", seed=0, fractions=(0.7, 0.15, 0.15))
    fitted = fit_split(clips, split, resolve(TrainConfig(head="pyramid"), [split]))
    assert [stream["weight"] for stream in fitted.streams] == [0.5, 0.5]


def test_weights_are_those_of_the_lowest_loss_and_leave_out_what_does_not_help() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 400)

    def predictions(right: float) -> np.ndarray:
        shares = np.full((400, 3), (1 - right) / 2)
        named = np.where(rng.random(400) < right, labels, (labels + 1) % 3)
        shares[np.arange(400), named] = right
        return shares.astype(np.float32)

    good, other, blind = predictions(0.7), predictions(0.7), np.full((400, 3), 1 / 3, np.float32)
    weights = weigh([good, other, blind], labels)
    assert weights.sum() == pytest.approx(1)
    assert weights[2] == 0
    grid = np.linspace(0, 1, 101)
    losses = []
    for share in grid:
        product = good.astype(float) ** share * other.astype(float) ** (1 - share)
        product /= product.sum(axis=1, keepdims=True)
        losses.append(-np.log(product[np.arange(400), labels]).mean())
    assert weights[0] == pytest.approx(grid[int(np.argmin(losses))], abs=0.02)
    assert weigh([good, good], labels).tolist().count(0) == 1
    assert weigh([blind], labels).tolist() == [1]


def test_heads_that_rule_out_different_classes_agree_on_what_is_left() -> None:
    labels = np.arange(8) % 4
    bits = [
        np.stack([np.arange(4) >> bit & 1 == label >> bit & 1 for label in labels])
        for bit in (0, 1)
    ]
    halves = [shares.astype(np.float32) / 2 for shares in bits]
    weights = weigh(halves, labels)
    assert weights == pytest.approx([0.5, 0.5])
    together = pooled(halves, weights)
    assert together[np.arange(8), labels].min() > 0.9
    assert pooled([halves[0][:0], halves[1][:0]], weights).shape == (0, 4)
