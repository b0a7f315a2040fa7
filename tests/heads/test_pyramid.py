"""Heads that are solved for: the pooling, the solver and the training, each held against another way."""

from __future__ import annotations

import dataclasses
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.errors import ConfigError
from pipeline.heads import cuts, last_layer, linear
from pipeline.heads.clips import load_clips
from pipeline.heads.config import TrainConfig
from pipeline.heads.identity import Identity
from pipeline.heads.linear import Basis, Problem
from pipeline.heads.saved import load_run
from pipeline.heads.splits import make_split
from pipeline.heads.training import train
from pipeline.heads.views import with_views
from pipeline.heads.zoo import build_head, head_kind
from tests.heads.sources import rising_or_falling
from tests.heads.test_identity import permuted, result_of

DRAWS = False
PYRAMID = TrainConfig(head="pyramid", baselines=False)
AVERAGE = TrainConfig(head="frame_average", baselines=False)


def unchecked() -> None:
    """Never stops."""


def pooled(x: np.ndarray, levels: tuple[int, ...]) -> np.ndarray:
    """The definition by plain NumPy: each step as often as segments are wanted, then equal cuts."""
    values = []
    for level in levels:
        for part in np.split(np.repeat(x.astype(np.float64), level, axis=0), level):
            values += [part.mean(axis=0), part.max(axis=0), part.std(axis=0)]
    return np.concatenate(values)


@pytest.mark.parametrize("levels", [(1, 2, 4), (3,)])
def test_segments_are_equal_for_every_number_of_real_steps(levels):
    from pipeline.heads.pooling import SegmentPool

    rng = np.random.default_rng(0)
    x = rng.normal(100, 0.1, (40, 40, 3)).astype(np.float32)
    mask = np.arange(40)[None] <= np.arange(40)[:, None]
    x[~mask] = 1e6
    found = np.asarray(SegmentPool(levels)(x, mask))
    for number in range(40):
        wanted = pooled(x[number, : number + 1], levels)
        np.testing.assert_allclose(found[number], wanted, rtol=2e-6, atol=2e-5)


def a_problem(
    rows: int = 60, columns: int = 12, classes: int = 3, signal: float = 0.8
) -> tuple[np.ndarray, Problem]:
    """Rows (float32, mean squared norm 1) whose classes overlap, a clip each."""
    rng = np.random.default_rng(1)
    labels = np.arange(rows) % classes
    x = rng.normal(size=(rows, columns)) + signal * np.eye(classes, columns)[labels]
    x = (x / np.sqrt((x**2).sum(axis=1).mean())).astype(np.float32)
    return labels, Problem(
        z=x, clip=np.arange(rows), targets=np.eye(classes)[labels], weights=np.ones(rows)
    )


@pytest.mark.parametrize("strength", [0.1, 10.0])
def test_the_solution_is_that_of_another_solver(strength):
    from sklearn.linear_model import LogisticRegression

    labels, problem = a_problem()
    ours = linear.Solver(problem, unchecked).solve(strength)
    theirs = LogisticRegression(C=strength, tol=1e-8, max_iter=5000).fit(problem.z, labels)
    np.testing.assert_allclose(
        linear.probabilities(problem, ours.logits(problem.z)),
        theirs.predict_proba(problem.z),
        atol=3e-3,
    )


@pytest.mark.parametrize(("rows", "columns"), [(30, 200), (200, 30)])
def test_in_the_directions_of_the_rows_the_solution_is_the_same(rows, columns):
    _, problem = a_problem(rows=rows, columns=columns)
    basis = Basis.of(problem.z)
    plain = linear.Solver(problem, unchecked).solve(3.0)
    turned = linear.Solver(dataclasses.replace(problem, z=basis.rows), unchecked).solve(3.0)
    assert turned.kernel.shape == (30, 3)
    np.testing.assert_allclose(problem.z @ basis.directions, basis.rows, atol=1e-4)
    moments = basis.rows.T @ basis.rows
    np.testing.assert_allclose(moments, np.diag(np.diag(moments)), atol=1e-4)
    np.testing.assert_allclose(basis.directions @ turned.kernel, plain.kernel, atol=1e-2)


def test_the_strength_is_the_best_of_the_folds_that_leave_a_clip_out():
    _, problem = a_problem(rows=150, columns=40, signal=2.0)
    parts = np.arange(150) // 3 % 5
    tried, best, _ = linear.choose(problem, parts, linear.STRENGTHS, unchecked)
    assert [one.strength for one in tried] == list(linear.STRENGTHS[: len(tried)])
    assert tried.index(best) == len(tried) - 1 - linear.WORSE
    assert best.loss == min(one.loss for one in tried)
    # Weak penalties overfit forty columns of noise, strong ones tell nothing apart.
    assert linear.STRENGTHS[0] < best.strength < linear.STRENGTHS[-1]
    assert best.top1 > 1 / 3


def test_inner_folds_keep_groups_whole_where_there_are_enough():
    table = load_clips(rising_or_falling(clips=96, groups=24)).table
    parts = cuts.inner_folds(table, 5, 0)
    assert set(parts) == set(range(5))
    assert (table.assign(part=parts).groupby("group")["part"].nunique() == 1).all()
    assert len(set(cuts.inner_folds(table.assign(group="one"), 5, 0))) == 5
    assert not cuts.inner_folds(table.iloc[:9], 5, 0).any()


@pytest.mark.parametrize(("groups", "folds"), [(9, 4), (6, 3), (4, 2), (3, 5)])
def test_with_few_groups_there_are_fewer_inner_folds_and_no_group_is_in_two(groups, folds):
    table = load_clips(rising_or_falling(clips=96, groups=groups)).table
    parts = cuts.inner_folds(table, 5, 0)
    assert len(set(parts)) == folds
    whole = (table.assign(part=parts).groupby("group")["part"].nunique() == 1).all()
    assert whole == (groups > 3)
    # Of two classes with two groups each, one could not be learned without its own fold.
    apart = table.assign(group=table["label"] + table["group"].isin(["g00", "g01"]).astype(str))
    parts = cuts.inner_folds(apart, 5, 0)
    assert (apart.assign(part=parts).groupby("label")["part"].nunique() > 1).all()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, dict[str, Any]]:
    """(source, folder, metrics) of a finished run of `pyramid`."""
    source = rising_or_falling(clips=96, groups=24)
    folder = tmp_path_factory.mktemp("runs") / "first"
    return source, folder, train(source, PYRAMID, folder)


def test_the_pyramid_learns_the_order_that_a_frame_average_cannot(finished, tmp_path):
    source, _, metrics = finished
    assert metrics["test"]["top1"] >= 0.9
    assert metrics["test"]["loss"] < 0.3
    average = train(source, AVERAGE, tmp_path / "run")
    assert average["test"]["top1"] <= metrics["test"]["top1"] - 0.2
    assert average["baseline"]["frame_average"] == average["test"]["top1"]


def test_a_run_records_what_was_chosen_and_by_which_figures(finished):
    _, folder, metrics = finished
    choice = json.loads((folder / "metrics.json").read_text())["choice"]
    assert choice == metrics["choice"]
    assert choice["folds"] == 5
    tried = [one["strength"] for one in choice["tried"]]
    assert tried == list(linear.STRENGTHS[: len(tried)])
    best = min(choice["tried"], key=lambda one: one["loss"])
    assert (choice["strength"], choice["sharpness"]) == (best["strength"], best["sharpness"])


def test_the_saved_head_predicts_what_the_run_recorded(finished):
    source, folder, _ = finished
    table = pd.read_csv(folder / "predictions.csv")
    test = table[table["part"] == "test"]
    said = load_run(folder).predict(source.features[test["row"]], source.mask[test["row"]])
    np.testing.assert_allclose(said[:, 0], test["p:fall"], atol=1e-5)
    assert 0.9 < said.max() < 1 - 1e-4, "what is always right is not known for certain"


def test_validation_clips_are_judged_unseen_and_then_fitted_on_too(tmp_path):
    source = rising_or_falling(clips=96, groups=24)
    rng = np.random.default_rng(0)
    source.features = rng.normal(size=source.features.shape).astype(np.float16)
    config = dataclasses.replace(PYRAMID, options={"strength": 1e4})
    metrics = train(source, config, tmp_path / "run")
    table = pd.read_csv(tmp_path / "run" / "predictions.csv")
    rows = table[table["part"] == "validation"]
    said = load_run(tmp_path / "run").predict(
        source.features[rows["row"]], source.mask[rows["row"]]
    )
    # Noise is known by heart, and nothing else of it can be known.
    assert (np.array(["fall", "rise"])[said.argmax(axis=1)] == rows["label"]).all()
    assert metrics["validation"]["top1"] < 0.85


@pytest.mark.parametrize(
    "config",
    [PYRAMID, pytest.param(AVERAGE, marks=pytest.mark.long)],
    ids=lambda config: config.head,
)
def test_streamed_or_loaded_again_or_in_other_rows_it_is_the_same_to_the_bit(config, tmp_path):
    source = rising_or_falling()
    train(source, config, tmp_path / "loaded")
    train(load_clips(source, stream=True), config, tmp_path / "streamed")
    assert result_of(tmp_path / "loaded") == result_of(tmp_path / "streamed")
    train(source, dataclasses.replace(config, seed=1), tmp_path / "seed")
    assert result_of(tmp_path / "loaded") != result_of(tmp_path / "seed")


@pytest.mark.long
def test_with_more_clips_than_are_held_the_head_is_nearly_the_same(finished, tmp_path, monkeypatch):
    source, folder, _ = finished
    whole = load_run(folder).predict(source.features, source.mask)
    monkeypatch.setattr(last_layer, "LANDMARKS", 40)
    fewer = train(source, PYRAMID, tmp_path / "run")
    some = load_run(tmp_path / "run").predict(source.features, source.mask)
    assert fewer["test"]["top1"] >= 0.9
    assert 0 < np.abs(some - whole).max() < 0.4
    monkeypatch.setattr(last_layer, "MOST_STEPS", 100)
    assert train(source, AVERAGE, tmp_path / "average")["test"]["clips"] > 0


@pytest.mark.long
def test_every_view_is_fitted_on(tmp_path):
    plain, mirror = rising_or_falling(), rising_or_falling(seed=9)
    mirror.mask[:], mirror.fingerprint = plain.mask, "0" * 64
    clips = with_views(load_clips(plain), [load_clips(mirror)])
    train(clips, PYRAMID, tmp_path / "both")
    train(plain, PYRAMID, tmp_path / "one")
    assert result_of(tmp_path / "both") != result_of(tmp_path / "one")


@pytest.mark.long
@pytest.mark.parametrize("options", [{"class_weights": True}, {"label_smoothing": 0.2}], ids=str)
def test_options_of_the_training_change_the_solution(options, finished, tmp_path):
    source, _, _ = finished
    source = dataclasses.replace(source, frame=source.frame.copy())
    source.frame.loc[source.frame.index % 4 == 0, "status"] = 0
    train(source, PYRAMID, tmp_path / "plain")
    train(source, dataclasses.replace(PYRAMID, **options), tmp_path / "run")
    assert result_of(tmp_path / "plain") != result_of(tmp_path / "run")


def test_it_stops_within_a_solution_and_resumes_to_the_same_bits(tmp_path, monkeypatch):
    source = rising_or_falling()
    train(source, PYRAMID, tmp_path / "whole")
    stop = threading.Event()
    cost = linear.Solver._cost

    def stopping(*arguments: Any) -> Any:
        stop.set()
        return cost(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(linear.Solver, "_cost", stopping)
        with pytest.raises(KeyboardInterrupt, match="nothing to keep"):
            train(source, PYRAMID, tmp_path / "half", stop=stop)
    assert not (tmp_path / "half" / "metrics.json").exists()
    train(permuted(source), PYRAMID, tmp_path / "half", resume=True)
    assert result_of(tmp_path / "half") == result_of(tmp_path / "whole")


@pytest.mark.long
def test_folds_are_solved_for_too(tmp_path):
    config = dataclasses.replace(PYRAMID, split="kfold", folds=3, baselines=True)
    metrics = train(rising_or_falling(clips=96, groups=24), config, tmp_path / "run")
    assert metrics["test"]["top1"] >= 0.85
    assert len(metrics["choice"]["folds"]) == 3
    assert metrics["choice"]["all"]["strength"] in linear.STRENGTHS
    assert metrics["baseline"]["frame_average"] < 0.8
    assert load_run(tmp_path / "run").metrics["digest"] == metrics["digest"]


def identity_of(config: TrainConfig) -> Identity:
    clips = load_clips(rising_or_falling())
    split = make_split(clips.table)
    from pipeline.heads.plan import resolve

    return Identity.of(clips, [split], resolve(config, [split]))


def test_a_frame_average_of_an_older_version_is_known_as_trained_by_gradients(tmp_path):
    by_gradient = dataclasses.replace(AVERAGE, options={"fit": "gradient"}, epochs=3)
    assert identity_of(by_gradient).head == {"name": "frame_average", "config": {"dropout": 0.2}}
    said = identity_of(by_gradient).differences(identity_of(AVERAGE))
    assert "fit gradient, now solved" in said
    assert "fit solved, now gradient" in identity_of(AVERAGE).differences(identity_of(by_gradient))
    train(rising_or_falling(), by_gradient, tmp_path / "run", on_epoch=interrupt)
    with pytest.raises(ConfigError, match="fit gradient, now solved"):
        train(rising_or_falling(), AVERAGE, tmp_path / "run", resume=True)
    metrics = train(rising_or_falling(), by_gradient, tmp_path / "run", resume=True)
    assert metrics["epochs"] == 3
    assert "choice" not in metrics


def interrupt(report: Any) -> None:
    raise KeyboardInterrupt


def test_the_strength_may_be_given(tmp_path):
    config = dataclasses.replace(PYRAMID, options={"strength": 2, "levels": "1,3"})
    metrics = train(rising_or_falling(), config, tmp_path / "run")
    assert metrics["choice"]["strength"] == 2
    assert len(metrics["choice"]["tried"]) == 1
    for value in ("-1", "many", "1e9", "nan"):
        with pytest.raises(ConfigError, match="a number from 0 to 10000"):
            head_kind("pyramid").configure({"strength": value})
    with pytest.raises(ConfigError, match="one of gradient, solved"):
        head_kind("frame_average").configure({"fit": "adam"})


def test_the_layers_that_are_solved_for_are_no_trainable_weights():
    model = build_head("pyramid", 6, (5,), 3)
    assert [tuple(w.shape) for w in model.trainable_weights] == [(105, 3), (3,)]


def test_clips_that_are_all_alike_are_told_apart_by_how_common_their_classes_are() -> None:
    basis = linear.Basis.of(np.zeros((6, 4), np.float32))
    labels = np.array([0, 0, 0, 0, 1, 1])
    problem = linear.Problem(
        z=basis.rows, clip=np.arange(6), targets=np.eye(2)[labels], weights=np.ones(6)
    )
    solution = linear.Solver(problem, lambda: None).solve(1.0)
    shares = linear.probabilities(problem, solution.logits(problem.z))
    np.testing.assert_allclose(shares, np.tile([4 / 6, 2 / 6], (6, 1)), atol=1e-3)
