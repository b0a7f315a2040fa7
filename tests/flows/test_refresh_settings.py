"""What a refresh is asked for, in one place; and test sets that are frozen by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows.settings.refresh import RefreshSettings
from flows.train import promotion
from tests.flows.refreshing import made
from tests.flows.running import run_here


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[refresh]\nstore = "a.zarr"\n[refresh.features]\nstore = "b.zarr"', "keep one"),
        ("[refresh.features]\ndry_run = true", "dry_run"),
        ('[refresh.features]\nframes = "four"', "frames in .* is 'four'"),
        ('[refresh.train]\nname = "accepted"', "name, which a refresh sets itself"),
        ("[refresh.train]\nepoch = 2", "did you mean epochs"),
    ],
)
def test_a_setting_that_would_be_overridden_is_refused(
    text: str, says: str, tmp_path: Path
) -> None:
    import tomllib

    from flows.settings.refresh import features_settings, resolved, train_settings
    from pipeline.errors import ConfigError

    tree = {"videos": "v", "store": "a.zarr"} | tomllib.loads(text)["refresh"]
    with pytest.raises(ConfigError, match=says):
        _all_of(RefreshSettings(**tree), resolved, features_settings, train_settings)


def _all_of(settings: RefreshSettings, resolved: Any, features: Any, train: Any) -> None:
    found = resolved(settings)
    features(found)
    train(found, "mlp")


def test_videos_store_and_weights_may_stand_under_features() -> None:
    from flows.settings.refresh import features_settings, resolved

    inner = {"videos": "v", "store": "s.zarr", "weights": "random:3"}
    found = resolved(RefreshSettings(features=inner | {"frames": 4}))
    assert (found.videos, found.store, found.weights) == ("v", "s.zarr", "random:3")
    extraction = features_settings(found)
    assert (extraction.weights, extraction.frames) == ("random:3", 4)


def test_the_name_accepted_is_kept_for_the_pointer(tmp_path: Path) -> None:
    said = run_here("train", "--store", str(tmp_path / "s.zarr"), "--name", "accepted")
    assert said.status == 1
    assert "the name accepted is kept" in said.err
    (tmp_path / "accepted").mkdir()
    from pipeline.errors import ConfigError

    with pytest.raises(ConfigError, match="is a folder, not a link"):
        promotion.promote(tmp_path, tmp_path / "run")


def test_freezing_writes_a_set_for_good(tmp_path: Path) -> None:
    url = made(tmp_path / "s.zarr", given=False)
    said = run_here("freeze", "--store", url, "--name", "2026", "--fraction", "0.3", "--json")
    assert said.status == 0, said.err
    again = run_here("freeze", "--store", url, "--name", "2026")
    assert again.status == 1
    assert "for good" in again.err
    listed = run_here("freeze", "--store", url, "--json").json["test_sets"]
    assert [(one["name"], one["clips"]) for one in listed] == [("2026", said.json["clips"])]
    by_id = run_here("freeze", "--store", url, "--name", "x", "--clips", "clip-00*")
    assert by_id.status == 0, by_id.err
    wrong = run_here(*TRAIN, "--store", url, "--test-set", "2025", "--runs", str(tmp_path / "r"))
    assert wrong.status == 1
    assert "no test set '2025' (it has 2026, x)" in wrong.err


TRAIN = ("train", "--head", "mlp", "--options", "units=4", "--epochs", "1")


@pytest.mark.long
def test_a_training_tests_on_a_frozen_set_and_is_compared_by_it(tmp_path: Path) -> None:
    url, runs = made(tmp_path / "s.zarr", given=False), str(tmp_path / "r")
    said = run_here("freeze", "--store", url, "--name", "2026", "--fraction", "0.3", "--json")
    trained = run_here(*TRAIN, "--store", url, "--test-set", "2026", "--json", "--runs", runs)
    assert trained.status == 0, trained.err
    assert trained.json["test"]["clips"] == said.json["clips"]
    assert "stay out of the training for the test sets of the store: 2026" in trained.err
    boards = run_here("compare", "--runs", runs, "--test-set", "2026", "--json")
    assert len(boards.json["boards"]) == 1
    assert run_here("compare", "--runs", runs, "--test-set", "2025").status == 1
