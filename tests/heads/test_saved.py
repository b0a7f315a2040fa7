"""A saved head is held against what its folder claims: one sentence where they do not agree."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.heads.config import TrainConfig
from pipeline.heads.saved import head_digest, load_run
from pipeline.heads.training import train
from pipeline.heads.zoo import build_head
from tests.heads.sources import MemorySource, rising_or_falling
from tests.sharing import others_long


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run `first`, and `other.keras` of the same head with other weights."""
    folder = tmp_path_factory.mktemp("runs")
    options = {"units": 4, "second_units": 4}
    config = TrainConfig(head="mlp", options=options, epochs=1, baselines=False)
    train(rising_or_falling(), config, folder / "first")
    build_head("mlp", 8, (6,), 2, options, seed=5).save(folder / "other.keras")
    return folder


def edit(folder: Path, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / name
    values = json.loads(path.read_text(encoding="utf-8"))
    change(values)
    path.write_text(json.dumps(values), encoding="utf-8")


def cut_in_half(folder: Path) -> None:
    data = (folder / "model.keras").read_bytes()
    (folder / "model.keras").write_bytes(data[: len(data) // 2])


def empty(folder: Path) -> None:
    (folder / "model.keras").write_bytes(b"")


def without_classes(folder: Path) -> None:
    edit(folder, "config.json", lambda config: config.pop("classes"))


def one_class_fewer(folder: Path) -> None:
    edit(folder, "config.json", lambda config: config["classes"].pop())


def one_class_twice(folder: Path) -> None:
    edit(folder, "config.json", lambda config: config.update(classes=["fall", "fall"]))


def classes_swapped(folder: Path) -> None:
    edit(folder, "config.json", lambda config: config["classes"].reverse())


def weights_of_another_run(folder: Path) -> None:
    shutil.copy(folder.parent / "other.keras", folder / "model.keras")


def other_steps(folder: Path) -> None:
    edit(folder, "config.json", lambda config: config.update(steps=9))


def broken_metrics(folder: Path) -> None:
    (folder / "metrics.json").write_text("{")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (cut_in_half, "model.keras cannot be loaded"),
        (empty, "model.keras cannot be loaded"),
        (without_classes, "config.json has no classes"),
        (one_class_fewer, "names 1 classes and its model has 2 outputs"),
        (one_class_twice, "names 1 classes and its model has 2 outputs"),
        (classes_swapped, "classes or weights in .* are not those that were trained"),
        (weights_of_another_run, "classes or weights in .* are not those that were trained"),
        (other_steps, r"shape \(9, 6\), and its model reads \(8, 6\)"),
        (broken_metrics, "metrics.json is damaged"),
    ],
)
def test_a_head_that_is_not_what_it_claims_is_refused(damage, says, runs, tmp_path):
    shutil.copytree(runs / "first", tmp_path / "run")
    shutil.copy(runs / "other.keras", tmp_path)
    damage(tmp_path / "run")
    with pytest.raises(ConfigError, match=says) as caught:
        load_run(tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_the_digest_is_of_what_was_saved_and_runs_without_one_still_load(runs, tmp_path):
    run = load_run(runs / "first")
    assert run.metrics["digest"] == head_digest(run.model, run.classes)
    shutil.copytree(runs / "first", tmp_path / "before")
    edit(tmp_path / "before", "metrics.json", lambda metrics: metrics.pop("digest"))
    assert load_run(tmp_path / "before").classes == ["fall", "rise"]


LOAD = """
import sys
from pipeline.heads.saved import load_run
for folder in sys.argv[1:]:
    print(load_run(folder).model.name)
"""


KINDS: dict[str, dict[str, Any]] = {
    "gru": {"preset": "standard", "units": 4},
    "attention": {"units": 8, "heads": 2},
    "pyramid": {},
    "conv3d": {"filters": (2, 2, 2), "dense": 4},
    "convlstm": {"filters": (2,)},
}


@pytest.mark.slow
@pytest.mark.parametrize("head", others_long(KINDS, "pyramid"))
def test_a_head_of_each_kind_of_layer_is_loaded_where_no_head_was_built_before(
    tmp_path: Path, head: str
) -> None:
    # In the process that trained it all layers are registered, whatever loading imports.
    source = rising_or_falling()
    if head.startswith("conv"):
        frames = np.random.default_rng(0).integers(0, 255, (20, 4, 8, 8, 3)).astype(np.float32)
        clips = source.table().head(20)
        source = MemorySource(features=frames, mask=np.ones((20, 4), bool), frame=clips)
    config = TrainConfig(head=head, options=KINDS[head], epochs=1, baselines=False)
    train(source, config, tmp_path / head)
    ended = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path / head)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stdout.split() == [head], ended.stderr
