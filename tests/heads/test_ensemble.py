"""Several seeds as one head: what it predicts, how it is saved, exported and resumed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.heads.clips import load_clips
from pipeline.heads.config import TrainConfig
from pipeline.heads.ensemble import member_seed
from pipeline.heads.export import export_run
from pipeline.heads.plan import resolve
from pipeline.heads.run_folder import read_metrics
from pipeline.heads.saved import load_run
from pipeline.heads.splits import make_split
from pipeline.heads.training import train
from pipeline.heads.zoo import build_ensemble, build_head
from tests.heads.sources import rising_or_falling
from tests.heads.test_identity import result_of

CONFIG = TrainConfig(
    head="mlp",
    options={"units": 8, "second_units": 8},
    epochs=3,
    split="grouped",
    stopping="fixed",
    ensemble=3,
    baselines=False,
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of an ensemble of three."""
    folder = tmp_path_factory.mktemp("ensemble") / "run"
    train(rising_or_falling(), CONFIG, folder)
    return folder


def probabilities(folder: Path) -> np.ndarray:
    source = rising_or_falling()
    return load_run(folder).predict(source.features, source.mask)


@pytest.mark.long
def test_it_is_the_mean_of_the_heads_that_its_seeds_give_alone(trained, tmp_path):
    alone = []
    split = make_split(rising_or_falling().frame)
    for number in range(3):
        seed = member_seed(CONFIG.seed, number)
        config = dataclasses.replace(CONFIG, ensemble=1, seed=seed)
        alone.append(_alone(config, split, tmp_path / str(number)))
    assert np.abs(alone[0] - alone[1]).max() > 1e-3
    np.testing.assert_allclose(probabilities(trained), np.mean(alone, axis=0), atol=1e-6)


def _alone(config: TrainConfig, split: Any, folder: Path) -> np.ndarray:
    """The probabilities of one head, trained on the ensemble's own split."""
    from pipeline.heads.fitting import fit_single
    from pipeline.heads.inference import predict_probabilities

    clips = load_clips(rising_or_falling())
    fitted = fit_single(clips, split, resolve(config, [split]))
    return predict_probabilities(fitted.fit.model, clips, np.arange(len(clips)), 32)


def test_its_history_has_every_member_and_its_figures_are_those_of_the_average(trained):
    history = pd.read_csv(trained / "history.csv")
    assert history["member"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert history["epoch"].tolist() == [1, 2, 3] * 3
    metrics = read_metrics(trained)
    assert metrics["epochs"] == metrics["best_epoch"] == 3
    predictions = pd.read_csv(trained / "predictions.csv")
    tested = predictions[predictions["part"] == "test"]
    hits = float((tested["label"] == tested["predicted"]).mean())
    assert metrics["test"]["top1"] == pytest.approx(hits)
    assert metrics["parameters"] == 3 * read_metrics_of_one()


def read_metrics_of_one() -> int:
    source = rising_or_falling()
    return int(
        build_head("mlp", source.steps, source.shape, 2, dict(CONFIG.options)).count_params()
    )


@pytest.mark.long
def test_an_interrupted_one_resumes_to_the_same_bits(trained, tmp_path):
    def interrupt(report: Any) -> None:
        if (report.member, report.epoch) == (1, 2):
            raise KeyboardInterrupt

    half = train(rising_or_falling(), CONFIG, tmp_path / "run", on_epoch=interrupt)
    assert half["stopped"]
    assert pd.read_csv(tmp_path / "run" / "history.csv")["member"].max() == 1
    epochs = []
    train(
        rising_or_falling(),
        CONFIG,
        tmp_path / "run",
        resume=True,
        on_epoch=lambda report: epochs.append((report.member, report.epoch)),
    )
    assert epochs == [(1, 3), (2, 1), (2, 2), (2, 3)]
    assert result_of(tmp_path / "run") == result_of(trained)


@pytest.mark.long
@pytest.mark.parametrize("format", ["saved_model", "onnx", "openvino"])
def test_it_is_exported_as_one_model(trained, tmp_path, format):
    name = "model.xml" if format == "openvino" else "model"
    result = export_run(load_run(trained), tmp_path / name, format=format)
    assert result["largest_difference"] < 1e-4


@pytest.mark.parametrize("head", ["gru", "attention", "tcn"])
def test_members_start_with_the_weights_of_their_seeds(head):
    options = {"units": 4} | ({"second_units": 4, "dense": 3} if head == "gru" else {})
    _, members = build_ensemble(head, 5, (3,), 2, options, seeds=(7, 8))
    for seed, member in zip((7, 8), members, strict=True):
        alone = build_head(head, 5, (3,), 2, options, seed=seed).get_weights()
        for ours, theirs in zip(member.get_weights(), alone, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_a_head_that_is_solved_for_is_trained_once():
    clips = load_clips(rising_or_falling())
    split = make_split(clips.table)
    config = TrainConfig(head="frame_average", ensemble=5)
    assert resolve(config, [split]).ensemble == 1
