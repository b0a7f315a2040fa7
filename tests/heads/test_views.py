"""Views are the same clips, looked at in another way; anything else is refused by name."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from pipeline.errors import SpecMismatch
from pipeline.heads.clips import load_clips
from pipeline.heads.config import TrainConfig
from pipeline.heads.leakage import LeakError
from pipeline.heads.saved import load_run
from pipeline.heads.training import train
from pipeline.heads.views import with_views
from tests.heads.sources import MemorySource, rising_or_falling

SPEC = {
    "backbone": "inception_v3",
    "weights": "sha256:aa",
    "view": "plain",
    "fit": "crop",
    "dtype": "float16",
    "sampling": {"rule": "uniform", "steps": 8, "offset": 0.5},
}


def view(name: str, seed: int = 0, **changes) -> MemorySource:
    source = rising_or_falling(clips=48, groups=12, seed=seed)
    source.spec = copy.deepcopy(SPEC) | changes
    source.fingerprint = name * 64
    source.mask[:] = True
    source.frame["sha256"] = [f"{i:064x}" for i in range(48)]
    return source


def views(plain: MemorySource, other: MemorySource):
    return with_views(load_clips(plain), [load_clips(other)])


@pytest.mark.parametrize(
    "changes",
    [
        {"view": "mirror"},
        {"fit": "pad"},
        {"sampling": SPEC["sampling"] | {"offset": 0.25}},
    ],
    ids=str,
)
def test_another_look_at_the_clips_is_a_view(changes):
    assert len(views(view("a"), view("b", **changes)).views) == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"backbone": "xception"}, "backbone xception against inception_v3"),
        ({"weights": "sha256:bb"}, "weights sha256:bb against sha256:aa"),
        ({"dtype": "float32"}, "dtype float32 against float16"),
        ({"sampling": SPEC["sampling"] | {"rule": "first"}}, "sampling.rule first against uniform"),
    ],
)
def test_steps_that_mean_something_else_are_no_view(changes, says):
    with pytest.raises(SpecMismatch, match=says):
        views(view("a"), view("b", **changes))


def test_other_labels_bytes_or_the_same_store_twice_are_refused():
    plain, other = view("a"), view("b", view="mirror")
    other.frame.loc[3, "label"] = "fall" if other.frame.loc[3, "label"] == "rise" else "rise"
    with pytest.raises(SpecMismatch, match=r"other labels for 1 of 48 clips \(such as .*clip_003"):
        views(plain, other)
    other = view("b", view="mirror")
    other.frame.loc[5, "sha256"] = "f" * 64
    with pytest.raises(SpecMismatch, match=r"other bytes of 1 of 48 clips \(such as .*clip_005"):
        views(plain, other)
    with pytest.raises(SpecMismatch, match="the same features as a store named before it"):
        views(plain, view("a", seed=1))


def test_a_leak_is_refused_with_views_as_without(tmp_path):
    plain, other = view("a"), view("b", view="mirror")
    for source in (plain, other):
        source.frame["split"] = np.where(np.arange(48) % 4 < 3, "train", "test")
        source.frame.loc[3, "sha256"] = source.frame.loc[0, "sha256"]
    with pytest.raises(LeakError, match="test clips have the bytes of clips in training"):
        train(views(plain, other), TrainConfig(head="mlp"), tmp_path / "run")


def test_the_figures_with_views_are_of_what_predict_runs(tmp_path):
    plain, other = view("a"), view("b", seed=1, view="mirror")
    config = TrainConfig(
        head="mlp", options={"units": 4, "second_units": 4}, epochs=1, baselines=False
    )
    metrics = train(views(plain, other), config, tmp_path / "run")
    run = load_run(tmp_path / "run")
    test = np.array(run.config["split"]["test"]["rows"])
    labels = plain.frame.loc[test, "label"].to_numpy()
    loss = []
    for source in (plain, other):
        probabilities = run.predict(source.features[test], source.mask[test])
        own = probabilities[np.arange(len(test)), (labels == "rise").astype(int)]
        loss.append((own, float(-np.log(own.astype(float)).mean())))
    assert metrics["test"]["loss"] == pytest.approx(loss[0][1], rel=1e-4)
    average = float(-np.log((loss[0][0].astype(float) + loss[1][0]) / 2).mean())
    assert metrics["test_views"]["loss"] == pytest.approx(average, rel=1e-4)
    assert metrics["test_views"]["views"] == 2
