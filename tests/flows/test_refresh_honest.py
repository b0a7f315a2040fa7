"""Refreshes in a row never train on what judges them, whatever split, and a planted leak is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import store
from flows import accepted
from flows.settings import RefreshSettings
from flows.summary import Summary
from pipeline.heads import plan
from pipeline.heads.config import TrainConfig
from pipeline.heads.record import read_clips
from tests.flows.running import Finished, run, run_here
from tests.flows.stores import add_clips, rising_or_falling

CONFIG = """
[refresh]
videos = "clips"
heads = "mlp"
[refresh.train]
epochs = 1
options = "units=4,second_units=4"
split = "{split}"
folds = 3
"""
Refresh = Callable[..., Finished]


@pytest.fixture
def refresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Refresh:
    """`refresh` on the store `s.zarr`, which its extraction finds as it is (or as `summary` says)."""
    monkeypatch.chdir(tmp_path)

    def go(*words: str, split: str = "grouped", **summary: Any) -> Finished:
        (tmp_path / "refresh.toml").write_text(CONFIG.format(split=split), encoding="utf-8")
        extracted = Summary(store="s.zarr", **({"outcome": "done", "clips": 1} | summary))
        monkeypatch.setattr("flows.refresh.features", lambda settings: extracted)
        return run_here(
            "refresh", "--config", "refresh.toml", "--store", "s.zarr", "--json", *words
        )

    return go


def clips_of(number: int, groups: list[str], **columns: Any) -> pd.DataFrame:
    """Clips to add, two of each group, one of each class."""
    labels = ["falling", "rising"] * len(groups)
    return pd.DataFrame(
        {
            "video_id": [f"new-{number:02d}-{i:02d}.mp4" for i in range(len(labels))],
            "label": labels,
            "group": np.repeat(groups, 2),
            "sha256": [f"{number:032x}{i:032x}" for i in range(len(labels))],
        }
        | columns
    )


def made(path: Path, *, given: bool) -> str:
    """The first store: 48 clips of 12 groups, some known by their bytes."""
    url = rising_or_falling(path)
    with store.Writer.acquire(url, owner="test") as writer:
        rows = np.arange(48)
        writer.set(rows, sha256=[f"{n:064x}" if n % 5 else "" for n in rows])
        if given:
            groups = writer.table["group"].to_numpy()
            writer.set(rows, split=np.where(groups < "g03", "test", "train"))
        writer.flush()
    return url


@pytest.mark.long
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    "splits",
    [
        ("grouped", "kfold", "stratified", "auto", "leave_one_group_out"),
        ("stratified", "grouped", "auto", "kfold", "grouped"),
        ("kfold", "auto", "grouped", "stratified", "kfold"),
        ("given", "auto", "kfold", "grouped", "given"),
    ],
    ids=lambda splits: splits[0],
)
def test_ten_refreshes_in_a_row_never_see_what_judges_them(
    splits: tuple[str, ...], refresh: Refresh, tmp_path: Path
) -> None:
    url = made(tmp_path / "s.zarr", given=splits[0] == "given")
    frozen, outcomes = None, []
    for number in range(10):
        split = splits[number % len(splits)]
        said = refresh("--threshold", "-1" if number % 3 == 2 else "1", split=split)
        assert said.status in (0, 5), said.err
        outcomes.append(said.json["outcome"])
        held = store.open(url).test_sets["refresh"]
        frozen = frozen or held
        assert held == frozen, "a test set is for good"
        assert said.json["clips"] == len(frozen["video_ids"])
        # Known without our own gate: who trained, and what the test set is of, from the table.
        table = store.open(url).table().set_index("video_id")
        tested = table.loc[frozen["video_ids"]]
        took = read_clips(tmp_path / "runs" / said.json["run"])
        seen = table.loc[took.loc[took["part"].isin(["train", "validation"]), "video_id"]]
        assert len(seen) > len(tested)
        assert not set(seen.index) & set(tested.index)
        assert not (set(seen["sha256"]) & set(tested["sha256"])) - {""}
        assert not set(seen["digest"]) & set(tested["digest"])
        if frozen["whole_groups"]:
            assert not set(seen["group"]) & set(tested["group"])
        # New groups may join. A new clip of a tested group, or of tested bytes, may not.
        new = clips_of(number, [f"n{number:02d}", f"m{number:02d}"])
        new["split"] = "train" if splits[0] == "given" else ""
        hashed = tested[tested["sha256"] != ""]
        new.loc[1, "sha256"] = hashed["sha256"].iloc[number % len(hashed)]
        new.loc[2, "group"] = tested["group"].iloc[number % len(tested)]
        add_clips(tmp_path / "s.zarr", new, seed=number)
    assert outcomes.count("refused") == 3
    assert outcomes.count("promoted") == 7


@pytest.mark.parametrize("what", ["row", pytest.param("group", marks=pytest.mark.long)])
def test_a_leak_that_is_planted_in_a_refresh_promotes_nothing(
    what: str, refresh: Refresh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path / "s.zarr", given=False)
    honest = plan._splits

    def leaky(clips: Any, config: TrainConfig) -> Any:
        (split,) = honest(clips, config)
        (holdout,) = clips.holdouts
        out = clips.rows[holdout.kept_out(clips.table)]
        planted = split.test[:1] if what == "row" else np.setdiff1d(out, split.test)[:1]
        return (replace(split, train=np.sort(np.append(split.train, planted))),)

    monkeypatch.setattr(plan, "_splits", leaky)
    if what == "group":
        # One clip of a tested group that is not in the set itself.
        refresh()
        tested = store.open(str(tmp_path / "s.zarr")).test_sets["refresh"]["groups"][0]
        add_clips(tmp_path / "s.zarr", clips_of(1, [tested]))
    accepted = tmp_path / "runs" / "accepted"
    before = accepted.readlink() if accepted.exists() else None
    said = refresh()
    assert said.status == 1, said.out
    assert "train" in said.err
    assert (accepted.readlink() if accepted.exists() else None) == before


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_leak_that_is_planted_in_a_sweep_is_refused_by_each_of_its_trainings(
    tmp_path: Path,
) -> None:
    url = made(tmp_path / "s.zarr", given=True)
    with store.Writer.acquire(url, owner="test") as writer:
        table = writer.table
        pair = [int(table.index[table["split"] == part][1]) for part in ("train", "test")]
        writer.set(pair, sha256="f" * 64)
        writer.flush()
    words = ("--heads", "mlp frame_average", "--epochs", "1", "--json")
    said = run("sweep", "--store", url, *words, cwd=tmp_path, timeout_s=500)
    errors = [one["error"] for one in said.json["outcomes"]]
    assert len(errors) == 2
    for error in errors:
        assert "1 of 12 test clips have the bytes of clips in training" in error
    assert not list(tmp_path.glob("runs/*/metrics.json"))


@pytest.mark.parametrize(
    ("signal", "status"), [("SIGTERM", 143), ("SIGINT", 130)], ids=["SIGTERM", "Ctrl-C"]
)
def test_stopped_while_it_extracts_nothing_is_trained(
    signal: str, status: int, refresh: Refresh, tmp_path: Path
) -> None:
    made(tmp_path / "s.zarr", given=False)
    said = refresh(outcome="interrupted", stopped_by=signal)
    assert said.status == status, said.err
    assert said.json["outcome"] == "interrupted"
    assert not (tmp_path / "runs").exists()
    assert store.open(str(tmp_path / "s.zarr")).test_sets == {}


def test_stopped_while_it_trains_nothing_is_promoted(
    refresh: Refresh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os
    import signal

    made(tmp_path / "s.zarr", given=False)
    monkeypatch.setattr(
        "flows.refresh.print_epoch", lambda report: os.kill(os.getpid(), signal.SIGTERM)
    )
    said = refresh()
    assert said.status == 143, said.err
    assert not (tmp_path / "runs" / "accepted").exists()


@pytest.mark.long
@pytest.mark.timeout(600)
def test_what_was_promoted_meanwhile_is_what_a_refresh_is_judged_by(
    refresh: Refresh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path / "s.zarr", given=False)
    runs = tmp_path / "runs"
    first = refresh().json["run"]
    add_clips(tmp_path / "s.zarr", clips_of(1, ["n1"]))
    other = "another-refresh"

    def overtaken(report: Any) -> None:
        if not (runs / other).exists():
            shutil.copytree(runs / first, runs / other)
            accepted.promote(runs, runs / other)

    events = []
    monkeypatch.setattr("flows.refresh.print_epoch", overtaken)
    monkeypatch.setattr(
        "flows.refreshed.emit_event",
        lambda **event: events.append((event["event"], (runs / "accepted").resolve().name)),
    )
    said = refresh("--threshold", "1")
    assert said.json["accepted"] == other
    assert events == [("pixels-once.refresh.promoted", said.json["run"])]
    # What came since is recorded with the new run, and the verdict beside it.
    config = json.loads((runs / said.json["run"] / "config.json").read_text())
    assert len(config["since"]["came"]) == 2
    verdict = json.loads((runs / said.json["run"] / "promotion.json").read_text())
    assert {line["class"] for line in verdict["classes"]} == {"falling", "rising"}


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_run_that_has_seen_the_test_clips_is_not_held_against_an_honest_one(
    refresh: Refresh, tmp_path: Path
) -> None:
    """As folders of runs are whose refreshes were made with kfold before there were test sets."""
    from flows.training import load_stores
    from pipeline.heads.training import train

    url = made(tmp_path / "s.zarr", given=False)
    config = TrainConfig(head="mlp", options={"units": 4}, epochs=1, split="kfold", baselines=False)
    train(load_stores(url).clips, config, tmp_path / "runs" / "old")
    for newer in ("clips.csv", "identity.json"):
        (tmp_path / "runs" / "old" / newer).unlink()
    accepted.promote(tmp_path / "runs", tmp_path / "runs" / "old")
    said = refresh("--threshold", "0")
    assert said.json["outcome"] == "promoted", said.err
    assert said.json["accepted_top1"] is None
    assert "old was trained on" in said.json["why"]


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

    from flows.refresh_settings import features_settings, resolved, train_settings
    from pipeline.errors import ConfigError

    tree = {"videos": "v", "store": "a.zarr"} | tomllib.loads(text)["refresh"]
    with pytest.raises(ConfigError, match=says):
        _all_of(RefreshSettings(**tree), resolved, features_settings, train_settings)


def _all_of(settings: RefreshSettings, resolved: Any, features: Any, train: Any) -> None:
    found = resolved(settings)
    features(found)
    train(found, "mlp")


def test_videos_store_and_weights_may_stand_under_features() -> None:
    from flows.refresh_settings import features_settings, resolved

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
        accepted.promote(tmp_path, tmp_path / "run")


def test_freezing_writes_a_set_that_a_training_tests_on(tmp_path: Path) -> None:
    url = made(tmp_path / "s.zarr", given=False)
    said = run_here("freeze", "--store", url, "--name", "2026", "--fraction", "0.3", "--json")
    assert said.status == 0, said.err
    again = run_here("freeze", "--store", url, "--name", "2026")
    assert again.status == 1
    assert "for good" in again.err
    listed = run_here("freeze", "--store", url, "--json").json["test_sets"]
    assert [(one["name"], one["clips"]) for one in listed] == [("2026", said.json["clips"])]
    words = (
        "--head",
        "mlp",
        "--options",
        "units=4",
        "--epochs",
        "1",
        "--runs",
        str(tmp_path / "r"),
    )
    trained = run_here("train", "--store", url, "--test-set", "2026", "--json", *words)
    assert trained.status == 0, trained.err
    assert trained.json["test"]["clips"] == said.json["clips"]
    assert "stay out of the training for the test sets of the store: 2026" in trained.err
    boards = run_here("compare", "--runs", str(tmp_path / "r"), "--test-set", "2026", "--json")
    assert len(boards.json["boards"]) == 1
    none = run_here("compare", "--runs", str(tmp_path / "r"), "--test-set", "2025")
    assert none.status == 1
    by_id = run_here("freeze", "--store", url, "--name", "x", "--clips", "clip-00*")
    assert by_id.status == 0, by_id.err
    wrong = run_here("train", "--store", url, "--test-set", "2025", "--name", "other", *words)
    assert wrong.status == 1
    assert "no test set '2025' (it has 2026, x)" in wrong.err
