"""What a training takes over from an interrupted one: all of it exactly, or nothing and a reason."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.errors import ConfigError
from pipeline.heads.config import TrainConfig
from pipeline.heads.identity import Identity
from pipeline.heads.saved import load_run
from pipeline.heads.training import train
from tests.heads.sources import MemorySource, rising_or_falling

DRAWS = False
OPTIONS = {"units": 8, "dropout": 0.3}
WAYS = {
    "train": TrainConfig(
        head="mlp", options=OPTIONS, epochs=4, schedule="plateau", patience=3, baselines=False
    ),
    "kfold": TrainConfig(
        head="mlp", options=OPTIONS, epochs=2, split="kfold", folds=3, baselines=False
    ),
}


def three_classes() -> MemorySource:
    """48 clips of three classes in 12 groups."""
    source = rising_or_falling(clips=48, groups=12)
    source.frame["label"] = np.array(["fall", "rise", "still"])[np.arange(48) // 2 % 3]
    return source


def result_of(folder: Path) -> str:
    """A hash of every weight of a run's saved head, and of every loss on the way there."""
    history = pd.read_csv(folder / "history.csv", dtype=str)
    hasher = hashlib.sha256(history[["loss", "val_loss", "lr"]].to_csv().encode())
    for array in load_run(folder).model.get_weights():
        hasher.update(np.ascontiguousarray(array).tobytes())
    return hasher.hexdigest()


def interrupt_at(epoch: int, fold: int = 0) -> Callable[[Any], None]:
    """A hook that presses Ctrl-C after this epoch of this fold."""

    def hook(report: Any) -> None:
        if (report.epoch, report.fold) == (epoch, fold):
            raise KeyboardInterrupt

    return hook


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """For each way the folder of an interrupted run."""
    folder = tmp_path_factory.mktemp("interrupted")
    for way, config in WAYS.items():
        interrupt(config, folder / way)
    return {way: folder / way for way in WAYS}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The result of a run that was not interrupted, by its way."""

    @functools.cache
    def trained(way: str) -> str:
        folder = tmp_path_factory.mktemp("whole") / way
        train(three_classes(), WAYS[way], folder)
        return result_of(folder)

    return trained


def interrupt(config: TrainConfig, out: Path) -> None:
    """Press Ctrl-C in the second epoch, or in the second of three folds."""
    folded = config.split == "kfold"
    try:
        train(
            three_classes(),
            config,
            out,
            on_epoch=interrupt_at(1, fold=1) if folded else interrupt_at(2),
        )
    except KeyboardInterrupt:
        assert folded


def permuted(source: MemorySource) -> MemorySource:
    """The same clips in other rows."""
    order = np.random.default_rng(3).permutation(len(source.frame))
    frame = source.frame.iloc[order].reset_index(drop=True).rename_axis("row")
    return MemorySource(source.features[order], source.mask[order], frame)


def grown(source: MemorySource, label: str) -> MemorySource:
    """Six clips more, of this label."""
    other = rising_or_falling(clips=6, seed=5)
    other.frame["label"], other.frame["group"] = label, "g99"
    other.frame["video_id"] = [f"new/{i}.mp4" for i in range(6)]
    return MemorySource(
        np.concatenate([source.features, other.features]),
        np.concatenate([source.mask, other.mask]),
        pd.concat([source.frame, other.frame], ignore_index=True).rename_axis("row"),
    )


def changed_source(change: str) -> MemorySource:
    source = three_classes()
    frame = source.frame
    if change == "class renamed":
        frame["label"] = frame["label"].replace("fall", "drop")
    elif change == "class added":
        return grown(source, "jump")
    elif change == "clips added":
        return grown(source, "rise")
    elif change == "class gone":
        frame.loc[frame["label"] == "still", "status"] = 3
    elif change == "labels swapped":
        frame.loc[[0, 2], "label"] = frame.loc[[2, 0], "label"].to_numpy()
    elif change == "group changed":
        frame.loc[0, "group"] = "g05"
    elif change == "split given":
        frame["split"] = np.where(frame["group"] < "g09", "train", "test")
    elif change == "rows permuted":
        return permuted(source)
    elif change == "features changed":
        source.features[7] += 1
    elif change == "spec changed":
        source.fingerprint, source.spec = "0" * 64, {"backbone": "other", "sampling": {"steps": 1}}
    return source


EXACT = "continues exactly"
SOURCES = {
    "nothing": EXACT,
    "class renamed": r"16 clips have another label .*: fall, now drop",
    "class added": EXACT,
    "clips added": EXACT,
    "class gone": r"16 clips are gone",
    "labels swapped": r"2 clips have another label",
    "group changed": r"1 clip has another group \(fall/clip_000.mp4: g00, now g05\)",
    "split given": r"48 clips have another split",
    "rows permuted": EXACT,
    "features changed": r"1 clip has other features \(rise/clip_007.mp4",
    "spec changed": r"backbone none, now other",
}
SETTINGS: dict[str, tuple[dict[str, Any], str, str]] = {
    # what is changed, what `train` says, what `kfold` says
    "head": ({"head": "lstm"}, r"head mlp, now lstm", r"head mlp, now lstm"),
    "width": ({"options": OPTIONS | {"units": 16}}, r"units 8, now 16", r"units 8, now 16"),
    "lr": ({"lr": 0.01}, r"lr 0.0001, now 0.01", r"lr 0.0001, now 0.01"),
    "the same lr by name": ({"lr": 0.0001}, EXACT, EXACT),
    "epochs": ({"epochs": 9}, r"epochs 4, now 9", r"epochs 2, now 9"),
    "batch": ({"train_batch": 5}, r"train_batch 8, now 5", r"train_batch 8, now 5"),
    "precision": ({"precision": "bfloat16"}, r"float32, now bfloat16", r"float32, now bfloat16"),
    "split": ({"split": "stratified"}, r"grouped, now stratified", r"kfold, now stratified"),
    "the same split by name": ({"split": "grouped"}, EXACT, r"kfold, now grouped"),
    "seed": ({"seed": 1}, r"seed 0, now 1", r"seed 0, now 1"),
    "folds": ({"folds": 4}, EXACT, r"folds 3, now 4"),
}
CASES = [
    *((way, change, {}, says) for way in WAYS for change, says in SOURCES.items()),
    *(
        (way, change, changes, says[list(WAYS).index(way)])
        for way in WAYS
        for change, (changes, *says) in SETTINGS.items()
    ),
]
QUICK = {("train", "rows permuted")}


@pytest.mark.parametrize(
    ("way", "change", "settings", "says"),
    [
        pytest.param(
            *case,
            id=f"{case[0]}: {case[1]}",
            marks=[pytest.mark.long] if case[3] == EXACT and case[:2] not in QUICK else [],
        )
        for case in CASES
    ],
)
def test_a_resumed_run_continues_exactly_or_is_refused_by_name(
    interrupted: dict[str, Path],
    whole: Callable[[str], str],
    tmp_path: Path,
    way: str,
    change: str,
    settings: dict[str, Any],
    says: str,
) -> None:
    began = interrupted[way]
    out = tmp_path / began.name
    shutil.copytree(began, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    config = dataclasses.replace(WAYS[way], **settings)
    if says == EXACT:
        metrics = train(changed_source(change), config, out, resume=True)
        assert not metrics["stopped"]
        assert result_of(out) == whole(way)
        return
    with pytest.raises(ConfigError, match=says) as refused:
        train(changed_source(change), config, out, resume=True)
    assert "--overwrite" in str(refused.value)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_ctrl_c_within_an_epoch_loses_that_epoch_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.heads import epochs

    config = dataclasses.replace(WAYS["train"], lr=0.3, epochs=6, patience=6)
    train(three_classes(), config, tmp_path / "whole")
    batches, seen = epochs._training_batches, []

    def breaking(*args: Any) -> Any:
        for batch in batches(*args):
            seen.append(len(batch[2]))
            if len(seen) == 5 * 4:  # four batches are an epoch
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(epochs, "_training_batches", breaking)
    half = train(three_classes(), config, tmp_path / "half")
    assert half["stopped"]
    assert half["best_epoch"] < half["epochs"] == 4, "the best weights are the latest: a weak test"
    monkeypatch.undo()
    train(three_classes(), config, tmp_path / "half", resume=True)
    assert result_of(tmp_path / "half") == result_of(tmp_path / "whole")


def test_a_run_begun_before_identities_were_recorded_is_not_resumed_but_opens(
    interrupted: dict[str, Path], tmp_path: Path
) -> None:
    for way, began in interrupted.items():
        out = tmp_path / began.name
        shutil.copytree(began, out)
        (out / "identity.json").unlink()
        with pytest.raises(ConfigError, match=r"does not record .*--overwrite"):
            train(three_classes(), WAYS[way], out, resume=True)
    assert load_run(tmp_path / "train").classes == ["fall", "rise", "still"]


def test_a_checkpoint_or_a_fold_of_another_run_is_refused(
    interrupted: dict[str, Path], tmp_path: Path
) -> None:
    for way in WAYS:
        shutil.copytree(interrupted[way], tmp_path / way)
    shutil.rmtree(tmp_path / "train" / "checkpoint")
    shutil.copytree(
        tmp_path / "kfold" / "folds" / "01" / "checkpoint", tmp_path / "train" / "checkpoint"
    )
    mark = tmp_path / "kfold" / "folds" / "00" / "fold.json"
    mark.write_text(json.dumps({"identity": "0" * 64, "fold": 0}))
    for way in WAYS:
        with pytest.raises(ConfigError, match=r"of another run.*--overwrite"):
            train(three_classes(), WAYS[way], tmp_path / way, resume=True)


def test_a_run_records_the_settings_that_were_used(
    interrupted: dict[str, Path],
) -> None:
    config = json.loads((interrupted["train"] / "config.json").read_text())
    used, asked = config["train"], config["asked"]
    assert (asked["lr"], asked["train_batch"], asked["precision"]) == (0.0, 0, "auto")
    assert (used["lr"], used["train_batch"], used["precision"]) == (0.0001, 8, "float32")
    assert (asked["split"], used["split"]) == ("auto", "grouped")


def test_a_setting_that_an_earlier_version_did_not_have_counts_as_its_default(
    interrupted: dict[str, Path],
) -> None:
    recorded = Identity.load(interrupted["train"])
    assert recorded is not None
    fewer = {k: v for k, v in recorded.settings.items() if k != "label_smoothing"}
    earlier = dataclasses.replace(recorded, settings=fewer)
    assert earlier.differences(recorded) == []
    other = dataclasses.replace(recorded, settings=recorded.settings | {"label_smoothing": 0.1})
    assert earlier.differences(other) == ["label_smoothing 0.0, now 0.1"]


@pytest.mark.long
def test_a_run_that_died_before_it_was_recorded_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoint").mkdir(parents=True)
    (tmp_path / "run" / "identity.json").write_text("{}")
    metrics = train(three_classes(), WAYS["train"], tmp_path / "run", resume=True)
    assert metrics["epochs"] == 4
