"""How a refresh judges a new head where the accepted one was trained on the test clips."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flows.settings.refresh import RefreshSettings
from flows.train import promotion
from flows.train.promotion import refreshed_set, with_test_set
from flows.train.refresh import _judge
from flows.train.shared import Made, load_stores
from pipeline.heads.config import TrainConfig
from pipeline.heads.training import train
from tests.flows.stores import rising_or_falling

DRAWS = False
MLP = TrainConfig(head="mlp", options={"units": 4}, epochs=1, baselines=False)


@pytest.mark.long
@pytest.mark.parametrize(
    ("lr", "epochs", "outcome"),
    [(1e-9, 1, "refused"), (0.03, 40, "promoted")],
)
def test_a_head_that_cannot_be_compared_is_held_against_its_baselines(
    tmp_path: Path, lr: float, epochs: int, outcome: str
) -> None:
    url, runs = rising_or_falling(tmp_path / "s.zarr"), tmp_path / "runs"
    loaded = load_stores(url)
    train(loaded.clips, replace(MLP, split="kfold", folds=3), runs / "old")
    promotion.promote(runs, runs / "old")
    holdout = refreshed_set(url, loaded.clips, "", runs / "old", how="grouped", seed=0)
    loaded = replace(loaded, clips=with_test_set(url, loaded.clips, holdout, lease=True))
    head = replace(
        MLP,
        head="gru",
        options={"units": 8},
        epochs=epochs,
        lr=lr,
        test_set=holdout.name,
        baselines=True,
    )
    metrics = train(loaded.clips, head, runs / "new")
    settings = RefreshSettings(store=url, videos="x", runs=str(runs), threshold=-0.01)
    result = _judge(
        settings, loaded.clips, holdout, runs, Made(folder=runs / "new", metrics=metrics)
    )
    assert result.outcome == outcome, result.why
    assert "so it cannot be held against" in result.why
    assert result.accepted_top1 is None
