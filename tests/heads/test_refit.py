"""A head trained once more with the validation clips: which clips, how long, what is said of it."""

from __future__ import annotations

import dataclasses
import gc
import weakref
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.heads import compiling
from pipeline.heads.clips import load_clips
from pipeline.heads.config import TrainConfig
from pipeline.heads.fitting import fit_single
from pipeline.heads.plan import make_splits, plan_training, resolve
from pipeline.heads.run_folder import read_metrics
from pipeline.heads.training import train
from tests.heads.sources import rising_or_falling
from tests.heads.test_identity import result_of
from tests.sharing import others_long

DRAWS = False
CONFIG = TrainConfig(
    head="mlp",
    options={"units": 8, "second_units": 8},
    epochs=6,
    patience=3,
    lr=0.02,
    split="grouped",
    baselines=False,
    refit=True,
)
PLAIN = dataclasses.replace(CONFIG, refit=False)


@pytest.fixture(scope="module")
def clips():
    return load_clips(rising_or_falling())


@pytest.mark.parametrize("ensemble", others_long([1, 2], 1))
def test_it_is_the_head_that_all_but_the_test_clips_give_in_as_many_epochs(clips, ensemble):
    [split] = make_splits(clips, CONFIG)
    settings, plain = (
        resolve(dataclasses.replace(config, ensemble=ensemble), [split])
        for config in (CONFIG, PLAIN)
    )
    fitted, before = fit_single(clips, split, settings), fit_single(clips, split, plain)
    # What is said of validation is of the head that had not seen it.
    np.testing.assert_array_equal(fitted.parts["validation"][1], before.parts["validation"][1])
    assert fitted.progress.best_epoch == before.progress.best_epoch
    both = np.sort(np.concatenate([split.train, split.validation]))
    wider = dataclasses.replace(split, train=both, validation=both[:0])
    expected = fit_single(clips, wider, plain, last_epoch=before.progress.best_epoch)
    for weights, others in zip(
        fitted.fit.model.get_weights(), expected.fit.model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(weights, others)
    np.testing.assert_array_equal(fitted.parts["test"][1], expected.parts["test"][1])
    assert not np.array_equal(fitted.parts["test"][1], before.parts["test"][1])


@pytest.mark.parametrize("at", [pytest.param((False, 2), marks=pytest.mark.long), (True, 1)])
def test_stopped_in_either_training_it_keeps_a_head_and_resumes_to_the_same_bits(tmp_path, at):
    source = rising_or_falling()
    config = dataclasses.replace(CONFIG, stopping="fixed")

    def interrupt(report: Any) -> None:
        if (report.refit, report.epoch) == at:
            raise KeyboardInterrupt

    half = train(source, config, tmp_path / "run", on_epoch=interrupt)
    assert half["stopped"]
    assert (tmp_path / "run" / "model.keras").exists()
    seen: list[tuple[bool, int]] = []
    train(
        source,
        config,
        tmp_path / "run",
        resume=True,
        on_epoch=lambda report: seen.append((report.refit, report.epoch)),
    )
    every = [(False, epoch) for epoch in range(1, 7)] + [(True, epoch) for epoch in range(1, 7)]
    assert seen == every[every.index(at) + 1 :]
    train(source, config, tmp_path / "whole")
    assert result_of(tmp_path / "run") == result_of(tmp_path / "whole")


def test_folds_are_each_refitted_and_the_run_says_so(clips, tmp_path):
    config = dataclasses.replace(CONFIG, split="kfold", folds=2, epochs=2, stopping="fixed")
    seen: list[tuple[int, bool]] = []
    train(
        clips,
        config,
        tmp_path,
        on_epoch=lambda report: seen.append((report.fold, report.refit)),
    )
    assert set(seen) == {(0, False), (0, True), (1, False), (1, True), (2, False)}
    for fold in ("00", "01"):
        metrics = read_metrics(tmp_path / "folds" / fold)
        assert metrics["refit_clips"] > metrics["train_clips"]
        assert len(pd.read_csv(tmp_path / "folds" / fold / "history.csv")) == 2


def test_it_belongs_to_a_runs_identity_and_what_is_solved_for_needs_none(clips):
    hashes = {plan_training(clips, config).identity.hash for config in (CONFIG, PLAIN)}
    assert len(hashes) == 2
    assert "refit" not in PLAIN.to_dict()
    solved = dataclasses.replace(CONFIG, head="frame_average", options={})
    [split] = make_splits(clips, solved)
    fitted = fit_single(clips, split, resolve(solved, [split]))
    assert not fitted.fit.refit


def test_trainings_let_the_heads_of_those_before_go(clips, monkeypatch):
    monkeypatch.setattr(compiling, "_GIVE_BACK_EVERY", 1)
    [split] = make_splits(clips, PLAIN)
    settings = resolve(dataclasses.replace(PLAIN, epochs=2), [split])
    gc.disable()  # Python looks for circles seldom: in a large process hardly ever
    try:
        ended = weakref.ref(fit_single(clips, split, settings).fit.model)
        fit_single(clips, split, settings)
        assert ended() is None
    finally:
        gc.enable()
