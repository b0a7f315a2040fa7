"""Skeletons: the same wherever the person stands, however large, and whichever way it faces."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from flows.train.promotion import hits
from pipeline.errors import ConfigError
from pipeline.heads.clips import load_clips
from pipeline.heads.config import TrainConfig
from pipeline.heads.export import _description, _probe
from pipeline.heads.identity import Identity
from pipeline.heads.plan import require_same_run
from pipeline.heads.saved import load_run
from pipeline.heads.skeleton import CHANNELS, skeletons
from pipeline.heads.training import train
from tests.heads.sources import MemorySource, rising_or_falling

CLIPS, STEPS = 3, 12


def landmarks(clips: int = CLIPS, steps: int = STEPS, seed: int = 0) -> np.ndarray:
    """(clips, steps, 33, 4): a body of random proportions, whose joints move smoothly."""
    rng = np.random.default_rng(seed)
    body = rng.normal(0, 0.1, (clips, 1, 33, 3)) + 0.5
    body[:, :, [11, 12, 23, 24]] = [
        [[0.6, 0.3, 0.1], [0.4, 0.3, 0.0], [0.55, 0.6, 0.05], [0.45, 0.6, 0.0]]
    ]
    body = body + np.cumsum(rng.normal(0, 0.01, (clips, steps, 33, 3)), 1)
    return np.concatenate([body, np.full((clips, steps, 33, 1), 0.9)], -1)


def whole(clips: int = CLIPS, steps: int = STEPS) -> np.ndarray:
    return np.ones((clips, steps), bool)


def about_the_vertical(poses: np.ndarray, angle: float) -> np.ndarray:
    turned = poses.copy()
    x, z = poses[..., 0], poses[..., 2]
    turned[..., 0] = np.cos(angle) * x - np.sin(angle) * z
    turned[..., 2] = np.sin(angle) * x + np.cos(angle) * z
    return turned


def test_a_skeleton_is_104_finite_numbers() -> None:
    made = skeletons(landmarks(), whole())
    assert made.shape == (CLIPS, STEPS, CHANNELS)
    assert made.dtype == np.float32
    assert np.isfinite(made).all()
    assert made.std(axis=(0, 1)).min() > 0


def test_place_size_and_facing_do_not_matter() -> None:
    poses = landmarks()
    plain = skeletons(poses, whole())
    moved = poses + np.array([0.2, -0.1, 0.4, 0])
    larger = poses * [2.5, 2.5, 2.5, 1]
    for other in (moved, larger, *(about_the_vertical(poses, a) for a in (0.3, 1.5, 3.0, -2.0))):
        np.testing.assert_allclose(skeletons(other, whole()), plain, atol=2e-5)
    # But each joint does, and so does leaning to a side.
    bent = poses.copy()
    bent[:, :, 15, 0] += 0.05
    tilted = poses.copy()
    tilted[..., 0] = poses[..., 0] * 0.9 - poses[..., 1] * 0.4
    tilted[..., 1] = poses[..., 0] * 0.4 + poses[..., 1] * 0.9
    for other in (bent, tilted):
        assert np.abs(skeletons(other, whole()) - plain).max() > 0.05


def test_a_turn_within_a_clip_is_seen_across_the_seam_of_the_circle_too() -> None:
    """The body turns by a quarter: sine and cosine against the middle say so, wherever it began."""
    poses = np.repeat(landmarks(1)[:, :1], STEPS, axis=1)
    turns = np.linspace(0, np.pi / 2, STEPS)
    joints = []
    for start in (0.0, 2.0, 3.0, -3.0):
        turning = np.stack(
            [about_the_vertical(poses[0, t], start + turns[t]) for t in range(STEPS)]
        )
        sine, cosine = skeletons(turning[None], whole(1))[0, :, 45:47].T
        angle = np.arctan2(sine, cosine)
        assert (np.diff(angle) > 0).all()
        assert np.median(angle) == pytest.approx(0, abs=0.05)
        assert angle[-1] - angle[0] == pytest.approx(np.pi / 2, abs=0.15)
        joints.append(skeletons(turning[None], whole(1))[0, :, :45])
    # The joints turn with the trunk, and the same wherever it faced.
    assert np.ptp(joints[0], axis=0).max() > 0.5
    np.testing.assert_allclose(joints, np.repeat(joints[:1], 4, axis=0), atol=2e-5)


def test_angles_and_changes_are_what_they_are_called() -> None:
    poses = np.repeat(landmarks(1)[:, :1], STEPS, axis=1)
    for side, (shoulder, elbow, wrist) in enumerate([(11, 13, 15), (12, 14, 16)]):
        poses[:, :, elbow, :3] = poses[:, :, shoulder, :3] + [0, 0.1, 0]
        poses[:, :, wrist, :3] = poses[:, :, elbow, :3] + ([0, 0.1, 0], [0.1, 0, 0])[side]
    still = skeletons(poses, whole(1))[0]
    assert np.abs(still[:, 47:94]).max() < 1e-5
    angles = still[:, 94:]
    np.testing.assert_allclose(angles[:, 0], np.pi, atol=1e-5)  # a straight arm
    np.testing.assert_allclose(angles[:, 1], np.pi / 2, atol=1e-5)
    np.testing.assert_allclose(angles[:, 8], -np.pi / 2, atol=1e-5)  # it hangs
    np.testing.assert_allclose(angles[:, 9], -np.pi / 4, atol=1e-5)
    moving = poses.copy()
    moving[:, :, 0, 1] -= np.arange(STEPS) * 0.01
    change = skeletons(moving, whole(1))[0, 4:-4, 47:94]
    torso = np.linalg.norm(poses[0, 0, [11, 12], :3].mean(0) - poses[0, 0, [23, 24], :3].mean(0))
    np.testing.assert_allclose(change[:, 1], -0.01 / torso, rtol=0.01)
    assert np.abs(np.delete(change, 1, axis=1)).max() < 1e-5


def test_missing_persons_take_the_nearest_and_padding_stays_zero() -> None:
    poses, mask = landmarks(), whole()
    mask[0, 8:] = False
    poses[0, 8:] = 7.0  # whatever lies in padding
    poses[1, :4] = 0  # no person at first
    poses[1, 7] = 0
    poses[2] = 0  # nor ever
    made = skeletons(poses, mask)
    assert not made[0, 8:].any()
    np.testing.assert_array_equal(made[:1, :8], skeletons(poses[:1, :8], mask[:1, :8]))
    filled = poses.copy()
    filled[1, :4], filled[1, 7] = poses[1, 4], poses[1, 6]
    np.testing.assert_array_equal(made[1], skeletons(filled, mask)[1])
    assert not made[2].any()


@pytest.mark.parametrize("steps", [1, 2])
def test_short_clips_and_bodies_without_extent_are_finite(steps: int) -> None:
    for poses in (landmarks(1, steps), np.full((1, steps, 33, 4), 0.5)):
        assert np.isfinite(skeletons(poses, whole(1, steps))).all()
    assert skeletons(np.zeros((0, 5, 33, 4)), np.zeros((0, 5), bool)).shape == (0, 5, CHANNELS)


@pytest.fixture(scope="module")
def source() -> MemorySource:
    """A store of poses whose classes raise or lower an arm."""
    made = rising_or_falling(clips=48, steps=6, groups=12)
    poses = np.repeat(landmarks(1, 1, seed=4), 6, axis=1)
    poses = np.repeat(poses, 48, axis=0).astype(np.float32)
    for joint in (15, 19):
        poses[:, :, joint, 1] -= made.features[:, :, 0] * 0.2
    poses[:, :, :, :2] += np.random.default_rng(1).uniform(-0.3, 0.3, (48, 1, 1, 2))
    poses[~made.mask] = 0
    spec = {"backbone": "pose", "shape": [33, 4], "sampling": {"steps": 6}}
    return dataclasses.replace(made, features=poses.astype(np.float16), spec=spec)


@pytest.fixture(scope="module")
def run(source: MemorySource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "skeleton"
    config = TrainConfig(head="mlp", options={"units": 32, "second_units": 16}, epochs=25, lr=0.01)
    metrics = train(source, config, folder)
    assert metrics["test"]["top1"] > 0.9
    return folder


def test_a_pose_store_is_read_as_skeletons_and_the_run_says_so(
    source: MemorySource, run: Path
) -> None:
    config = json.loads((run / "config.json").read_text())
    assert config["train"]["skeleton"] == "yes"
    assert config["shape"] == [CHANNELS]
    identity = Identity.load(run)
    assert identity is not None
    assert identity.settings["skeleton"] == "yes"
    loaded = load_clips(source)
    assert loaded.skeleton
    assert loaded.features is not None
    np.testing.assert_array_equal(loaded.features, skeletons(source.features, source.mask))
    streamed = load_clips(source, stream=True)
    for features, mask, at in streamed.batches(np.arange(48), 16):
        np.testing.assert_array_equal(features, loaded.features[at])
        np.testing.assert_array_equal(mask, source.mask[at])


def test_the_run_predicts_from_landmarks_as_it_was_trained(source: MemorySource, run: Path) -> None:
    head = load_run(run)
    assert (head.shape, head.model_shape) == ((33, 4), (CHANNELS,))
    probabilities = head.predict(source.features, source.mask)
    features = skeletons(source.features, source.mask)
    model = head.model.predict_on_batch({"features": features[:32], "mask": source.mask[:32]})
    np.testing.assert_allclose(probabilities[:32], model, atol=1e-6)
    shifted = source.features.astype(np.float32)
    shifted[source.mask] += [0.5, 0.25, 0, 0]
    np.testing.assert_allclose(head.predict(shifted, source.mask), probabilities, atol=0.02)
    with pytest.raises(ConfigError, match=r"give \(n, 6, 33, 4\)"):
        head.predict(features, source.mask)
    exported = _description(head)
    assert exported["inputs"]["features"]["shape"] == [None, 6, CHANNELS]
    assert "skeletons" in exported["preprocessing"]
    assert _probe(head)[0].shape[1:] == (6, CHANNELS)
    # A refresh compares heads on clips that were loaded for training.
    right = hits(run, load_clips(source), np.arange(48))
    truth = source.frame["label"].to_numpy()
    np.testing.assert_array_equal(right, np.array(head.classes)[probabilities.argmax(1)] == truth)


def test_landmarks_can_be_read_as_they_are(source: MemorySource, tmp_path: Path) -> None:
    config = TrainConfig(
        head="mlp",
        options={"units": 32, "second_units": 16},
        epochs=1,
        skeleton="no",
        baselines=False,
    )
    train(source, config, tmp_path / "plain")
    identity = Identity.load(tmp_path / "plain")
    assert identity is not None
    # As a run before there were skeletons: its identity is unchanged.
    assert "skeleton" not in identity.settings
    head = load_run(tmp_path / "plain")
    assert head.shape == head.model_shape == (33, 4)
    head.predict(source.features, source.mask)
    assert hits(tmp_path / "plain", load_clips(source), np.arange(48)).shape == (48,)
    asked = dataclasses.replace(config, skeleton="auto")
    with pytest.raises(ConfigError, match="skeleton no, now yes"):
        require_same_run(tmp_path / "plain", load_clips(source), asked)


def test_only_poses_have_skeletons(source: MemorySource, tmp_path: Path) -> None:
    other = rising_or_falling()
    assert not load_clips(other).skeleton
    with pytest.raises(ConfigError, match="store of backbone pose"):
        load_clips(other, skeleton="yes")
    with pytest.raises(ConfigError, match="loaded with yes"):
        train(load_clips(source), TrainConfig(head="mlp", skeleton="no"), tmp_path / "run")
