"""Refreshes in a row never train on what judges them, whatever split, and a planted leak is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import store
from flows.settings.training import SweepSettings
from flows.train import promotion
from flows.train.shared import load_stores
from flows.train.sweep import run_trial, trials
from pipeline.heads import plan
from pipeline.heads.config import TrainConfig
from pipeline.heads.leakage import LeakError
from pipeline.heads.run_folder import read_clips
from tests.flows.refreshing import Refresh, clips_of, made, refresh
from tests.flows.running import finish, run, start_code
from tests.flows.stores import add_clips

__all__ = ["refresh"]  # a fixture

DRAWS = False


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


@pytest.mark.parametrize(
    "what", ["row", *(pytest.param(what, marks=pytest.mark.long) for what in ("group", "bytes"))]
)
def test_a_leak_that_is_planted_in_a_refresh_promotes_nothing(
    what: str, refresh: Refresh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path / "s.zarr", given=False)
    honest = plan.make_splits

    def leaky(clips: Any, config: TrainConfig) -> Any:
        (split,) = honest(clips, config)
        (holdout,) = clips.holdouts
        out = clips.rows[holdout.kept_out(clips.table)]
        planted = split.test[:1] if what == "row" else np.setdiff1d(out, split.test)[:1]
        return (replace(split, train=np.sort(np.append(split.train, planted))),)

    monkeypatch.setattr(plan, "make_splits", leaky)
    if what != "row":
        # One clip of a tested group, or of tested bytes, that is not in the set itself.
        with monkeypatch.context() as honestly:
            honestly.setattr(plan, "make_splits", honest)
            assert refresh().json["outcome"] == "promoted"
        source = store.open(str(tmp_path / "s.zarr"))
        held, table = source.test_sets["refresh"], source.table().set_index("video_id")
        new = clips_of(1, [held["groups"][0] if what == "group" else "elsewhere"]).iloc[:1]
        if what == "bytes":
            hashes = table.loc[held["video_ids"], "sha256"]
            new = new.assign(sha256=hashes[hashes != ""].iloc[0])
        add_clips(tmp_path / "s.zarr", new)
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


@pytest.mark.parametrize("what", ["row", "group", "bytes"])
def test_a_leak_that_is_planted_in_a_trial_of_a_sweep_is_refused(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = made(tmp_path / "s.zarr", given=False)
    honest = plan.make_splits

    def leaky(clips: Any, config: TrainConfig) -> Any:
        (split,) = honest(clips, config)
        if what == "group":  # a clip of a tested group goes to the training
            return (
                replace(split, test=split.test[1:], train=np.sort([*split.train, split.test[0]])),
            )
        if what == "row":
            return (replace(split, train=np.sort([*split.train, split.test[0]])),)
        at = clips.positions(np.array([split.train[0], split.test[0]]))
        clips.table.iloc[at, clips.table.columns.get_loc("sha256")] = "f" * 64
        return (split,)

    monkeypatch.setattr(plan, "make_splits", leaky)
    settings = SweepSettings(
        store=url, heads="mlp", units="4,4", epochs=1, runs=str(tmp_path / "runs")
    )
    (trial,) = trials(settings, (4,))
    with pytest.raises(LeakError, match={"row": "are also in training"}.get(what, what)):
        run_trial(trial, settings, load_stores(url))
    assert not (tmp_path / "runs").exists()


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


@pytest.mark.long
def test_stopped_while_it_trains_nothing_is_promoted(refresh: Refresh, tmp_path: Path) -> None:
    """In a process of its own, which the signal may end."""
    made(tmp_path / "s.zarr", given=False)
    assert refresh(outcome="interrupted", stopped_by="SIGINT").status == 130  # the config's file
    code = """
import os, signal, sys
import flows.train.refresh as refresh
from flows.cli.main import main
from flows.extract.summary import Summary
refresh.features = lambda settings: Summary(store="s.zarr", outcome="done", clips=1)
refresh.shared.print_epoch = lambda report: os.kill(os.getpid(), signal.SIGTERM)
sys.exit(main(["refresh", "--config", "refresh.toml", "--store", "s.zarr", "--json"]))
"""
    stopped = finish(start_code(code, cwd=tmp_path))
    assert stopped.status == 143, stopped.err
    assert stopped.json["outcome"] == "interrupted"
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
            promotion.promote(runs, runs / other)

    events = []
    monkeypatch.setattr("flows.train.shared.print_epoch", overtaken)
    monkeypatch.setattr(
        "flows.train.result.emit_event",
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
    from pipeline.heads.training import train

    url = made(tmp_path / "s.zarr", given=False)
    config = TrainConfig(head="mlp", options={"units": 4}, epochs=1, split="kfold", baselines=False)
    train(load_stores(url).clips, config, tmp_path / "runs" / "old")
    for newer in ("clips.csv", "identity.json"):
        (tmp_path / "runs" / "old" / newer).unlink()
    promotion.promote(tmp_path / "runs", tmp_path / "runs" / "old")
    said = refresh("--threshold", "1")
    assert said.json["outcome"] == "promoted", said.err
    assert said.json["accepted_top1"] is None
    assert "so it cannot be held against; beside " in said.json["why"]
