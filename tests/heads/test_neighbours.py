"""Nearest clips: exact, padding-blind, and honest about chance."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.heads.neighbours import look_alikes, nearest, project, same_class_share
from pipeline.heads.statistics import Statistics


def clouds(
    per_class: int = 20, classes: int = 3, spread: float = 0.1
) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    centres = random.normal(size=(classes, 16))
    labels = np.arange(per_class * classes) % classes
    noise = random.normal(size=(len(labels), 16)) * spread
    # A large common part, as CNN features have.
    return (100 + centres[labels] + noise).astype(np.float32), np.array([f"c{n}" for n in labels])


def test_the_nearest_are_those_of_a_plain_loop() -> None:
    vectors, _ = clouds()
    scaling = Statistics.of(vectors)
    unit = scaling.unit(vectors)
    places, cosines = nearest(vectors, vectors[7], count=5, scaling=scaling, leave_out=7)
    plain = sorted(
        ((float(unit[i] @ unit[7]), -i) for i in range(len(unit)) if i != 7), reverse=True
    )
    assert places.tolist() == [-i for _, i in plain[:5]]
    assert cosines == pytest.approx([c for c, _ in plain[:5]], abs=1e-6)


def test_a_clip_is_its_own_nearest_unless_left_out() -> None:
    vectors, _ = clouds()
    places, cosines = nearest(vectors, vectors[3], count=1, scaling=Statistics.of(vectors))
    assert (places[0], round(float(cosines[0]), 5)) == (3, 1.0)


def test_more_is_asked_for_than_there_is() -> None:
    vectors, _ = clouds(per_class=2, classes=2)
    found, _ = nearest(vectors, vectors[0], count=99, scaling=Statistics.of(vectors), leave_out=0)
    assert sorted(found.tolist()) == [1, 2, 3]


def test_neighbours_agree_where_classes_are_apart_and_not_where_they_are_noise() -> None:
    vectors, labels = clouds()
    told = same_class_share(vectors, labels)
    assert told["same_class"] == 1.0
    assert told["chance"] == pytest.approx(19 / 59)
    noise = np.random.default_rng(1).normal(size=vectors.shape).astype(np.float32)
    assert same_class_share(noise, labels)["same_class"] == pytest.approx(1 / 3, abs=0.15)


def test_clips_of_the_same_group_are_left_out_when_asked() -> None:
    vectors, labels = clouds()
    only = same_class_share(vectors, labels, groups=labels)  # a group for each class
    assert only["same_class"] == only["chance"] == 0.0


def test_copies_are_found_as_look_alikes_and_nothing_else() -> None:
    vectors, _ = clouds(spread=1.0)
    vectors[11] = vectors[40]
    pairs = look_alikes(vectors)
    assert pairs[["first", "second"]].to_numpy().tolist() == [[11, 40]]


def test_the_map_keeps_classes_apart_and_takes_any_few_clips() -> None:
    vectors, labels = clouds()
    points, shares = project(vectors)
    assert points.shape == (60, 2)
    assert 0 < shares[1] <= shares[0] <= 1
    middles = np.stack([points[labels == name].mean(axis=0) for name in ("c0", "c1", "c2")])
    assert np.linalg.norm(middles[0] - middles[1]) > 5 * points[labels == "c0"].std(axis=0).max()
    assert project(vectors[:2])[0].shape == (2, 2)


@pytest.mark.parametrize("clips", [0, 1, 2])
def test_of_few_clips_or_none_the_places_of_look_alikes_are_still_whole_numbers(clips: int) -> None:
    pairs = look_alikes(np.ones((clips, 4), np.float32))
    assert [str(kind) for kind in pairs[["first", "second"]].dtypes] == ["int64", "int64"]
