"""What a refresh makes of one that was interrupted: the head of one that was not, or a named refusal."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import store
from pipeline.heads.run_folder import read_clips
from tests.flows.refreshing import CONFIG, Refresh, refresh
from tests.flows.running import Finished
from tests.flows.stores import add_clips, rising_or_falling

__all__ = ["refresh"]  # a fixture

DRAWS = False

SAME = "the head of a refresh that was not interrupted"
Change = Callable[[Path], None]


def labels(path: Path) -> None:
    """Three classes: a third of the clips is `still`."""
    with store.Writer.acquire(str(path), owner="test") as writer:
        rows = np.arange(len(writer.table))
        third = rows[rows // 2 % 3 == 2]
        writer.set(third, label=np.full(len(third), "still", dtype=object))
        writer.flush()


def written(path: Path, rows: Any, **columns: Any) -> None:
    with store.Writer.acquire(str(path), owner="test") as writer:
        writer.set(np.asarray(rows), **columns)
        writer.flush()


def renamed(path: Path) -> None:
    table = store.open(str(path)).table()
    rows = table.index[table["label"] == "falling"].to_numpy()
    written(path, rows, label=np.full(len(rows), "dropping", dtype=object))


def class_added(path: Path) -> None:
    new = {"video_id": [f"j{i}.mp4" for i in range(6)], "label": "jump"}
    add_clips(path, pd.DataFrame(new | {"group": [f"j{i}" for i in range(6)]}), seed=9)


def clips_added(path: Path) -> None:
    new = {"video_id": [f"r{i}.mp4" for i in range(6)], "label": "rising", "group": "r"}
    add_clips(path, pd.DataFrame(new), seed=9)


def class_gone(path: Path) -> None:
    table = store.open(str(path)).table()
    with store.Writer.acquire(str(path), owner="test") as writer:
        writer.mark(table.index[table["label"] == "still"].to_numpy(), store.GONE)
        writer.flush()


def swapped(path: Path) -> None:
    table = store.open(str(path)).table()
    pair = [int(table.index[table["label"] == label][3]) for label in ("falling", "rising")]
    written(path, pair, label=np.array(["rising", "falling"], dtype=object))


def features_changed(path: Path) -> None:
    with store.Writer.acquire(str(path), owner="test") as writer:
        rows = np.array(writer.rows_of(0))
        features = store.read_batch(str(path), 0).copy()
        features[7] += 1
        digests = store.write_batch(str(path), 0, features, token=writer.token)
        writer.set(rows, digest=digests)
        writer.flush()


def rows_permuted(path: Path) -> None:
    """The store made again, with the same clips and test sets, in another order."""
    before = store.open(str(path))
    table, sets = before.table(), dict(before.test_sets)
    order = np.random.default_rng(3).permutation(len(table))
    features = before.load().features[order]
    shutil.rmtree(path)
    rising_or_falling(path, rows=len(table))
    columns = {
        name: table[name].to_numpy()[order] for name in ("video_id", "label", "group", "sha256")
    }
    with store.Writer.acquire(str(path), owner="test") as writer:
        writer.set(np.arange(len(table)), **columns)
        for batch in range(-(-len(table) // 16)):
            rows = np.array(writer.rows_of(batch))
            digests = store.write_batch(str(path), batch, features[rows], token=writer.token)
            writer.set(rows, digest=digests)
        for name, values in sets.items():
            store.add_test_set(writer, name, values)
        writer.flush()


def spec_changed(path: Path) -> None:
    shutil.rmtree(path)
    rising_or_falling(path, view="mirror")
    labels(path)


def nothing(path: Path) -> None:
    pass


STORES: dict[str, tuple[Change, str]] = {
    "nothing": (nothing, SAME),
    "class renamed": (renamed, SAME),
    "class added": (class_added, SAME),
    "clips added": (clips_added, SAME),
    "class gone": (class_gone, SAME),
    "labels swapped": (swapped, SAME),
    "features changed": (features_changed, SAME),
    "rows permuted": (rows_permuted, SAME),
    "spec changed": (spec_changed, r"the accepted run mlp-s-.* reads spec .* and the store has"),
}
SETTINGS: dict[str, tuple[dict[str, str], str]] = {
    "head": ({'heads = "mlp"': 'heads = "late_fusion"', ",second_units=4": ""}, SAME),
    "width": ({"units=4,": "units=8,"}, SAME),
    "lr": ({"epochs = 2": "epochs = 2\nlr = 0.01"}, SAME),
    "split": ({'split = "grouped"': 'split = "stratified"'}, SAME),
    "kfold": ({'split = "grouped"': 'split = "kfold"'}, SAME),
    "seed": ({"epochs = 2": "epochs = 2\nseed = 1"}, SAME),
    "folds": ({"folds = 3": "folds = 4"}, SAME),
    "a name of its own": (
        {"epochs = 2": 'epochs = 2\nname = "x"'},
        r"has name, which a refresh sets itself",
    ),
}
CASES = [
    *((change, edit, {}, says) for change, (edit, says) in STORES.items()),
    *((change, nothing, words, says) for change, (words, says) in SETTINGS.items()),
]


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place for a folder with an accepted run and an interrupted one; made by the first test."""
    return tmp_path_factory.mktemp("interrupted")


def digest_of(runs: Path, said: Finished) -> str:
    metrics = json.loads((runs / said.json["run"] / "metrics.json").read_text("utf-8"))
    return str(metrics["digest"])


def begin(folder: Path, refresh: Refresh, monkeypatch: pytest.MonkeyPatch, cwd: Path) -> None:
    """An accepted run, clips that came since, and a refresh that Ctrl-C ended after an epoch."""
    rising_or_falling(cwd / "s.zarr")
    labels(cwd / "s.zarr")
    assert refresh().json["outcome"] == "promoted"
    new = {"video_id": ["n0.mp4", "n1.mp4"], "label": ["falling", "rising"], "group": "n"}
    add_clips(cwd / "s.zarr", pd.DataFrame(new))
    before = set((cwd / "runs").iterdir())

    def ctrl_c(report: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as pressed:
        pressed.setattr("flows.train.shared.print_epoch", ctrl_c)
        stopped = refresh()
    assert (stopped.status, stopped.json["outcome"]) == (130, "interrupted")
    (left,) = set((cwd / "runs").iterdir()) - before
    (folder / "left").write_text(left.name)
    for name in ("s.zarr", "runs"):
        shutil.copytree(cwd / name, folder / name, symlinks=True)
        shutil.rmtree(cwd / name)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("change", "edit", "words", "says"), [pytest.param(*case, id=case[0]) for case in CASES]
)
def test_after_an_interrupted_refresh_comes_the_head_of_one_that_was_not_or_a_refusal(
    change: str,
    edit: Change,
    words: dict[str, str],
    says: str,
    interrupted: Path,
    refresh: Refresh,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tests.flows.refreshing.CONFIG", config(words={}))
    if not (interrupted / "left").exists():
        begin(interrupted, refresh, monkeypatch, tmp_path)
    left = (interrupted / "left").read_text()
    monkeypatch.setattr("tests.flows.refreshing.CONFIG", config(words))
    heads, outcomes = [], []
    for was_interrupted in (True, False):
        for name in ("s.zarr", "runs"):
            shutil.rmtree(tmp_path / name, ignore_errors=True)
            shutil.copytree(interrupted / name, tmp_path / name, symlinks=True)
        runs = tmp_path / "runs"
        if not was_interrupted:
            shutil.rmtree(runs / left)
        accepted = (runs / "accepted").readlink()
        edit(tmp_path / "s.zarr")
        held = store.open(str(tmp_path / "s.zarr")).test_sets
        said = refresh()
        if says != SAME:
            assert said.status == 1
            assert pd.Series([said.err]).str.contains(says).all(), said.err
            assert (runs / "accepted").readlink() == accepted
            continue
        assert said.status in (0, 5), said.err
        assert said.json["run"] != left
        promoted = said.json["outcome"] == "promoted"
        assert (runs / "accepted").readlink() == (Path(said.json["run"]) if promoted else accepted)
        assert store.open(str(tmp_path / "s.zarr")).test_sets == held
        took = read_clips(runs / said.json["run"])
        trained = set(took.loc[took["part"].isin(["train", "validation"]), "video_id"])
        assert trained
        assert not trained & set(held["refresh"]["video_ids"])
        heads.append(digest_of(runs, said))
        outcomes.append((said.json["outcome"], said.json["top1"], said.json["difference"]))
    assert len(set(heads)) <= 1
    assert len(set(outcomes)) <= 1
    assert says != SAME or len(heads) == 2


def config(words: dict[str, str]) -> str:
    """The config of the refreshes, with these words replaced in its text."""
    text = CONFIG.replace("epochs = 1", "epochs = 2").format(split="grouped")
    for old, new in words.items():
        assert old in text, old
        text = text.replace(old, new)
    return text
