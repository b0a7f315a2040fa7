"""What a training promises: it learns order, keeps its best, repeats, resumes and refuses."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.errors import ConfigError, SpecMismatch
from pipeline.heads import epochs, evaluation, plots, training
from pipeline.heads.clips import load_clips
from pipeline.heads.config import TrainConfig
from pipeline.heads.epochs import Callbacks
from pipeline.heads.plan import auto_batch
from pipeline.heads.saved import load_run
from pipeline.heads.statistics import masked_statistics
from pipeline.heads.tensorboard import log_epochs
from pipeline.heads.training import train
from pipeline.heads.views import with_views
from tests.heads.sources import rising_or_falling

MLP = {"units": 8, "second_units": 8}
QUICK = TrainConfig(head="mlp", options=MLP, epochs=3, baselines=False)
"""A recurrent head takes seconds to compile: where order in time is not the point, an MLP will do."""
WRITTEN = {
    "classes.csv",
    "clips.csv",
    "config.json",
    "confusion.csv",
    "confusion.png",
    "curves.png",
    "history.csv",
    "identity.json",
    "leakage.csv",
    "metrics.json",
    "mistakes.csv",
    "model.keras",
    "model.png",
    "predictions.csv",
}


DRAWS = False


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(source, folder, metrics, epoch reports) of one finished run."""
    source = rising_or_falling(clips=96, groups=24)
    folder = tmp_path_factory.mktemp("runs") / "first"
    reports = []
    config = TrainConfig(head="gru", options={"preset": "standard"}, epochs=30)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "draw_plots", plots.draw_plots)  # the one run that is drawn
        metrics = train(
            source, config, folder, on_epoch=reports.append, first_stage={"weights": "random:0"}
        )
    return source, folder, metrics, reports


def test_a_recurrent_head_learns_the_order_that_a_frame_average_cannot(finished):
    _, _, metrics, _ = finished
    assert metrics["test"]["top1"] >= 0.9
    assert metrics["baseline"]["frame_average"] <= metrics["test"]["top1"] - 0.2
    assert metrics["baseline"]["majority"] == pytest.approx(0.5, abs=0.1)
    assert metrics["baseline"]["chance"] == 0.5


def test_a_run_leaves_everything_that_is_promised(finished):
    source, folder, metrics, reports = finished
    assert {path.name for path in folder.iterdir()} == WRITTEN
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    config = json.loads((folder / "config.json").read_text())
    assert config["fingerprint"] == source.fingerprint
    assert config["spec"] == source.spec
    assert config["first_stage"] == {"weights": "random:0"}
    part = config["split"]["test"]
    assert part["digests"] == source.digests(part["rows"]).tolist()
    assert part["video_ids"] == source.frame.loc[part["rows"], "video_id"].tolist()
    history = pd.read_csv(folder / "history.csv")
    assert len(history) == len(reports) == metrics["epochs"]
    assert history["clips_per_second"].gt(0).all()


def test_predictions_agree_with_the_figures_and_with_the_saved_head(finished):
    source, folder, metrics, _ = finished
    table = pd.read_csv(folder / "predictions.csv")
    test = table[table["part"] == "test"]
    assert (test["label"] == test["predicted"]).mean() == metrics["test"]["top1"]
    run = load_run(folder)
    said = run.predict(source.features[test["row"]], source.mask[test["row"]])
    np.testing.assert_allclose(said[:, 0], test["p:fall"], atol=1e-5)
    assert run.moved_on(source) == []


def test_a_saved_run_says_what_moved_on_and_refuses_another_spec(finished):
    _, folder, _, _ = finished
    run = load_run(folder)
    other = rising_or_falling(clips=96, groups=24)
    other.features[5] += 1
    assert run.moved_on(other) == [other.frame.loc[5, "video_id"]]
    other.fingerprint, other.spec = "0" * 64, {"backbone": "other", "sampling": {"steps": 1}}
    with pytest.raises(SpecMismatch, match="backbone none against other"):
        run.require_same_spec(other)
    with pytest.raises(ConfigError, match="do not fit this head"):
        run.predict(np.zeros((1, 8, 7)), np.ones((1, 8), bool))
    with pytest.raises(ConfigError, match="no real step at its start"):
        run.predict(np.zeros((1, 8, 6)), np.zeros((1, 8), bool))


def test_a_name_in_use_is_refused_unless_overwritten(finished, tmp_path):
    source, folder, _, _ = finished
    with pytest.raises(ConfigError, match=r"exists.*--overwrite"):
        train(source, QUICK, folder)
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(ConfigError, match="not a run"):
        train(source, QUICK, tmp_path, overwrite=True)
    out = tmp_path / "again"
    train(source, QUICK, out)
    assert train(source, QUICK, out, overwrite=True)["epochs"] == 3


def test_equal_seeds_give_equal_heads_and_one_load_serves_many_trainings(tmp_path):
    source = rising_or_falling()
    clips = load_clips(source)
    first = train(clips, QUICK, tmp_path / "a")
    second = train(clips, QUICK, tmp_path / "b")
    assert first["test"] == second["test"]
    assert source.reads == 1


def test_an_interrupted_training_keeps_its_best_model_and_goes_on_exactly(tmp_path):
    source = rising_or_falling()
    config = dataclasses.replace(QUICK, epochs=6)
    whole = train(source, config, tmp_path / "whole")
    stop = threading.Event()

    def stop_after_two(report):
        if report.epoch == 2:
            stop.set()

    half = train(source, config, tmp_path / "half", on_epoch=stop_after_two, stop=stop)
    assert half["stopped"]
    assert half["epochs"] == 2
    assert load_run(tmp_path / "half").predict(source.features[:1], source.mask[:1]).shape == (1, 2)
    resumed = train(source, config, tmp_path / "half", resume=True)
    assert not resumed["stopped"]
    assert resumed["epochs"] == 6
    assert resumed["test"]["loss"] == pytest.approx(whole["test"]["loss"], abs=1e-5)
    assert not (tmp_path / "half" / "checkpoint").exists()


def test_ctrl_c_keeps_the_best_model_too(tmp_path):
    source = rising_or_falling()

    def interrupt(report):
        if report.epoch == 2:
            raise KeyboardInterrupt

    metrics = train(source, QUICK, tmp_path / "run", on_epoch=interrupt)
    assert metrics["stopped"]
    assert load_run(tmp_path / "run").metrics["stopped"]


@pytest.mark.parametrize("signal", ["SIGINT", pytest.param("SIGTERM", marks=pytest.mark.long)])
def test_a_stop_while_the_frame_average_trains_keeps_the_head_and_is_said(
    signal, tmp_path, monkeypatch
):
    source = rising_or_falling()
    real = evaluation.fit_split

    def interrupted(clips, split, config, **options):
        if config.head == "frame_average":
            options["callbacks"] = Callbacks(on_epoch=interrupt)
        return real(clips, split, config, **options)

    def interrupt(report):
        raise KeyboardInterrupt(signal)

    monkeypatch.setattr(evaluation, "fit_split", interrupted)
    config = TrainConfig(head="mlp", options={"units": 4, "second_units": 4}, epochs=3)
    stopped = train(source, config, tmp_path / "run")
    assert stopped["stopped"]
    assert stopped["stopped_by"] == signal
    assert "frame_average" not in stopped["baseline"]
    weights = load_run(tmp_path / "run").model.get_weights()
    monkeypatch.undo()
    whole = train(source, config, tmp_path / "run", resume=True)
    assert not whole["stopped"]
    assert whole["baseline"]["frame_average"] > 0
    for ours, theirs in zip(weights, load_run(tmp_path / "run").model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_early_stopping_goes_by_validation_and_keeps_the_best_epoch(tmp_path):
    source = rising_or_falling(clips=48)
    rng = np.random.default_rng(0)
    # Labels that nothing explains: validation can only get worse.
    source.frame["label"] = rng.permutation(source.frame["label"])
    config = dataclasses.replace(QUICK, epochs=60, patience=3, lr=0.02)
    metrics = train(source, config, tmp_path / "run")
    assert metrics["epochs"] == metrics["best_epoch"] + 3 < 60
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    assert history["val_loss"].idxmin() + 1 == metrics["best_epoch"]


def test_folds_are_averaged_and_one_head_is_fitted_on_all_clips(tmp_path):
    source = rising_or_falling()
    config = dataclasses.replace(QUICK, epochs=4, split="kfold", folds=3)
    metrics = train(source, config, tmp_path / "run")
    folds = [fold["top1"] for fold in metrics["folds"]]
    assert metrics["test"]["top1"] == pytest.approx(np.mean(folds))
    assert metrics["spread"]["top1"] == pytest.approx(np.std(folds, ddof=1))
    assert metrics["test"]["clips"] == 64
    best = [fold["best_epoch"] for fold in metrics["folds"]]
    assert metrics["epochs"] == round(np.median(best))
    assert metrics["train_clips"] == 64
    assert (tmp_path / "run" / "folds" / "02" / "model.keras").exists()
    table = pd.read_csv(tmp_path / "run" / "predictions.csv")
    assert sorted(table["row"]) == list(range(64))
    assert load_run(tmp_path / "run").classes == ["fall", "rise"]


def test_trains_on_what_is_ready_and_says_what_is_left_out(tmp_path):
    source = rising_or_falling()
    source.frame.loc[[0, 1], "status"] = 0
    source.frame.loc[2, "status"] = 2
    source.mask[3] = False
    metrics = train(source, QUICK, tmp_path / "run")
    assert metrics["left_out"] == {"pending": 2, "failed": 1, "without_steps": 1}


def test_features_that_are_not_finite_are_refused_by_name():
    source = rising_or_falling()
    source.features[7, 0, 0] = np.nan
    with pytest.raises(ConfigError, match=r"rise/clip_007\.mp4 are not finite"):
        load_clips(source)


def test_a_store_without_ready_or_labelled_clips_is_refused():
    source = rising_or_falling()
    source.frame["label"] = ""
    with pytest.raises(ConfigError, match="none of the 64 ready clips has a label"):
        load_clips(source)
    source.frame["status"] = 0
    with pytest.raises(ConfigError, match="none of the 64 clips in the store is ready"):
        load_clips(source)


@pytest.mark.long
def test_a_streamed_source_trains_like_a_loaded_one(tmp_path):
    source = rising_or_falling()
    loaded, streamed = load_clips(source), load_clips(source, stream=True)
    assert streamed.features is None
    at = np.arange(len(loaded))
    ours, theirs = masked_statistics(loaded, at), masked_statistics(streamed, at)
    np.testing.assert_allclose(ours.mean, theirs.mean, rtol=1e-6)
    config = TrainConfig(head="gru", options={"preset": "standard"}, epochs=20, baselines=False)
    assert train(streamed, config, tmp_path / "run")["test"]["top1"] >= 0.8


def test_views_are_drawn_in_training_and_their_average_stands_beside_the_test(tmp_path):
    plain, mirror = rising_or_falling(), rising_or_falling(seed=9)
    mirror.mask[:], mirror.fingerprint = plain.mask, "0" * 64
    clips = with_views(load_clips(plain), [load_clips(mirror)])
    drawn = np.concatenate([f for f, _, _ in clips.training_batches(np.arange(64), 16, 0, 0)])
    order = np.concatenate([at for _, _, at in clips.training_batches(np.arange(64), 16, 0, 0)])
    from_plain = (drawn == plain.features[order]).all(axis=(1, 2)).sum()
    from_mirror = (drawn == mirror.features[order]).all(axis=(1, 2)).sum()
    assert from_plain + from_mirror == 64
    assert min(from_plain, from_mirror) > 16
    metrics = train(clips, QUICK, tmp_path / "run")
    assert metrics["test"]["clips"] == metrics["test_views"]["clips"] > 0
    mirror.frame["video_id"] = [f"other/{i}" for i in range(64)]
    with pytest.raises(SpecMismatch, match="lacks 64 of 64 clips"):
        with_views(load_clips(plain), [load_clips(mirror)])


@pytest.fixture(scope="module")
def plain_losses(tmp_path_factory):
    """The training losses of three epochs without any option."""
    return losses_with({}, tmp_path_factory.mktemp("plain") / "run")


def losses_with(options, folder):
    train(uneven(), dataclasses.replace(QUICK, **options), folder)
    return pd.read_csv(folder / "history.csv")["loss"]


def uneven():
    """A source with twice as many clips of one class, so that class weights have something to do."""
    source = rising_or_falling()
    source.frame.loc[source.frame.index % 4 == 0, "status"] = 0
    return source


@pytest.mark.parametrize(
    "options",
    [
        {"class_weights": True},
        {"label_smoothing": 0.1},
        {"schedule": "cosine"},
        {"feature_dropout": 0.2},
        {"step_jitter": 1},
    ],
    ids=str,
)
def test_every_option_changes_the_training(options, plain_losses, tmp_path):
    losses = losses_with(options, tmp_path / "run")
    assert len(losses) == len(plain_losses) == 3
    assert not np.allclose(losses, plain_losses, rtol=1e-4)


def test_the_rate_falls_by_a_cosine_or_where_validation_does_not_get_better():
    cosine = dataclasses.replace(QUICK, lr=0.1, epochs=4, schedule="cosine")
    progress = epochs.Progress()
    rates = []
    for epoch in range(4):
        rates.append(epochs._learning_rate(cosine, progress))
        progress.history.append(an_epoch(epoch + 1))
    assert rates == pytest.approx([0.1, 0.0855, 0.0505, 0.0155], abs=1e-4)
    plateau = dataclasses.replace(cosine, schedule="plateau", patience=6)
    progress = epochs.Progress(lr=0.1, best_epoch=1)
    rates = []
    for epoch in range(6):
        rates.append(epochs._learning_rate(plateau, progress))
        progress.history.append(an_epoch(epoch + 1))
    # A third of the patience is two epochs: halved two and four epochs after the best.
    assert rates == [0.1, 0.1, 0.1, 0.05, 0.05, 0.025]


def an_epoch(number):
    figures = dict.fromkeys(("loss", "top1", "val_loss", "val_top1", "lr", "seconds"), 1.0)
    return epochs.EpochReport(epoch=number, epochs=9, clips_per_second=1.0, best=False, **figures)


def test_tensorboard_gets_the_epochs_of_every_fold(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    config = dataclasses.replace(QUICK, split="kfold", folds=2)
    seen = []
    log = log_epochs(tmp_path / "log")

    def on_epoch(report):
        seen.append(report)
        log(report)

    train(rising_or_falling(), config, tmp_path / "run", on_epoch=on_epoch)
    for fold in (0, 1):
        events = EventAccumulator(str(tmp_path / "log" / f"fold{fold + 1}"))
        events.Reload()
        found = {
            event.step: float(make_ndarray(event.tensor_proto))
            for event in events.Tensors("loss/validation")
        }
        told = {one.epoch: one.val_loss for one in seen if (one.fold, one.folds) == (fold, 2)}
        assert found == pytest.approx(told)


@pytest.mark.long
def test_pixel_heads_train_from_stored_frames(tmp_path):
    source = rising_or_falling(clips=24, steps=4, groups=6)
    pixels = np.clip(source.features[..., :1, None, None] * 80, 0, 255).astype(np.uint8)
    source.features = np.broadcast_to(pixels[..., 0, :, :, None], (24, 4, 64, 64, 3)).copy()
    config = TrainConfig(
        head="lrcn", options={"filters": "4,4,8,8", "units": 8}, epochs=2, baselines=True
    )
    metrics = train(source, config, tmp_path / "run")
    assert "frame_average" not in metrics["baseline"]
    assert metrics["test"]["clips"] > 0


def test_small_sets_get_small_batches():
    assert auto_batch(84, wide=True) == 8
    assert auto_batch(600, wide=False) == 64
    assert auto_batch(20_000, wide=True) == 128


@pytest.mark.long
def test_training_in_a_fresh_process_loads_no_pixels_and_no_store(tmp_path):
    code = (
        "import sys\n"
        "from tests.heads.sources import rising_or_falling\n"
        "from pipeline.heads.config import TrainConfig\n"
        "from pipeline.heads.training import train\n"
        f"train(rising_or_falling(), TrainConfig(head='gru', epochs=1), {str(tmp_path / 'run')!r})\n"
        "bad = [m for m in sys.modules if m.split('.')[0] in ('cv2', 'av', 'zarr', 'prefect',"
        " 'dask', 'store', 'flows', 'sklearn') or m.startswith('pipeline.features')]\n"
        "assert not bad, bad\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
