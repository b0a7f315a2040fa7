"""Pose: the geometry is exact, and real people are found where they stand."""

from __future__ import annotations

import importlib.util
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ConfigError, WeightsNotFound
from pipeline.features.backbones import LoadOptions, describe, load, resolve_weights
from pipeline.features.backbones.pose import Region, best_person, region_of
from pipeline.features.decoding import FramePlan, read_clip
from pipeline.spec import Spec

SHARED = Path(__file__).parents[2].parent / "shared"
FILES = SHARED / "weights" / "pose"

needs_files = pytest.mark.skipif(
    not FILES.is_dir() or importlib.util.find_spec("ai_edge_litert") is None,
    reason="BlazePose's files or LiteRT are not here",
)


@pytest.mark.parametrize("turn", [0.0, 0.4, -1.2, 2.5])
def test_a_point_of_the_crop_is_found_again_in_the_frame(turn: float) -> None:
    frame = np.zeros((300, 300, 3), np.uint8)
    frame[118:123, 168:173] = 255
    region = Region(x=150, y=140, side=160, turn=turn)
    crop = region.crop(frame)
    assert crop.shape == (256, 256, 3)
    assert 0 <= crop.min() <= crop.max() <= 1
    y, x = np.argwhere(crop[..., 0] > 0.5).mean(0)
    placed = region.to_frame(np.array([[x, y, 16.0]]))
    np.testing.assert_allclose(placed[0], [170, 120, 10], atol=0.8)


def test_a_region_stands_on_the_hips_and_turns_the_head_up() -> None:
    upright = region_of(np.array([100.0, 100.0]), np.array([100.0, 60.0]))
    assert upright == Region(x=100, y=100, side=100, turn=0)
    fallen = region_of(np.array([100.0, 100.0]), np.array([140.0, 100.0]))
    assert fallen is not None
    assert math.isclose(fallen.turn, math.pi / 2)
    # Turned upright, the point beyond the head is straight above the hips.
    above = fallen.to_frame(np.array([[128.0, 128.0 - 102.4, 0.0]]))
    np.testing.assert_allclose(above[0, :2], [140, 100], atol=1e-3)
    assert region_of(np.zeros(2), np.zeros(2)) is None
    assert region_of(np.zeros(2), np.array([np.nan, 1])) is None


def test_the_most_certain_person_is_taken_and_its_detections_averaged() -> None:
    boxes = np.zeros((2254, 12), np.float32)
    scores = np.full(2254, -200.0, np.float32)
    assert best_person(boxes, scores, 224) is None

    def see(anchor: int, score: float, hips: tuple[float, float]) -> None:
        scores[anchor] = score
        middle = np.array([anchor // 2 % 28 + 0.5, anchor // 2 // 28 + 0.5]) * 8
        offset = np.array(hips) - middle
        boxes[anchor] = [*offset, 40, 40, *offset, *(offset - (0, 30)), 0, 0, 0, 0]

    see(28 * 2 * 10 + 20, 3.0, (84.0, 84.0))
    see(28 * 2 * 10 + 22, 3.0, (88.0, 84.0))
    see(28 * 2 * 20 + 50, 1.0, (200.0, 164.0))
    person = best_person(boxes, scores, 448)
    assert person is not None
    np.testing.assert_allclose(
        [person.x, person.y, person.side, person.turn], [172, 168, 150, 0], atol=1e-3
    )


def test_pose_takes_a_folder_of_two_files_and_nothing_else(tmp_path: Path) -> None:
    with pytest.raises(WeightsNotFound, match=r"no pose_detection\.tflite in 'random'"):
        resolve_weights("random", "pose")
    (tmp_path / "pose_detection.tflite").write_bytes(b"a")
    with pytest.raises(WeightsNotFound, match=r"no pose_landmark_full\.tflite"):
        resolve_weights(str(tmp_path), "pose")
    (tmp_path / "pose_landmark_full.tflite").write_bytes(b"b")
    first = resolve_weights(str(tmp_path), "pose")
    (tmp_path / "pose_landmark_full.tflite").write_bytes(b"c")
    assert first.hash != resolve_weights(str(tmp_path), "pose").hash


@pytest.mark.skipif(importlib.util.find_spec("ai_edge_litert") is None, reason="no LiteRT")
def test_what_is_no_model_is_one_sentence(tmp_path: Path) -> None:
    for name in ("pose_detection.tflite", "pose_landmark_full.tflite"):
        (tmp_path / name).write_bytes(b"no model")
    weights = resolve_weights(str(tmp_path), "pose")
    spec = Spec(backbone="pose", size=384, shape=(33, 4), weights=weights.hash)
    with pytest.raises(ConfigError, match="no model that LiteRT can run") as caught:
        load(spec, weights)
    assert "\n" not in str(caught.value)


@needs_files
@pytest.mark.slow
def test_a_tennis_player_is_followed_through_the_serve() -> None:
    kind = describe("pose")
    weights = resolve_weights(str(FILES), "pose")
    spec = Spec(
        backbone="pose", size=kind.size, shape=kind.shape, dtype=kind.dtype, weights=weights.hash
    )
    backbone = load(spec, weights, LoadOptions(threads=2))
    clip = sorted((SHARED / "clips" / "tennis" / "TennisServe").glob("*"))[0]
    frames = read_clip(str(clip), FramePlan.of(spec)).frames
    poses = backbone(frames)
    assert poses.shape == (len(frames), 33, 4)
    x, y, _, visibility = np.moveaxis(poses, 2, 0)
    assert (visibility.mean(1) > 0.5).all()
    assert ((x > 0) & (x < 1) & (y > 0) & (y < 1)).mean() > 0.99
    # Upright throughout: nose over hips over ankles, by a few per cent of the frame.
    assert (y[:, 0] + 0.05 < y[:, 23:25].mean(1)).all()
    assert (y[:, 23:25].mean(1) + 0.05 < y[:, 27:29].mean(1)).all()
    # The ball is tossed: a wrist goes over the nose in the middle of a serve.
    assert (y[:, 15:17].min(1) < y[:, 0]).any()
    with ThreadPoolExecutor(2) as threads:
        for again in threads.map(backbone, [frames, frames]):
            np.testing.assert_array_equal(again, poses)


@needs_files
def test_a_frame_without_people_is_zeros_and_the_next_is_looked_at_afresh() -> None:
    kind = describe("pose")
    weights = resolve_weights(str(FILES), "pose")
    spec = Spec(backbone="pose", size=kind.size, shape=kind.shape, weights=weights.hash)
    backbone = load(spec, weights, LoadOptions(threads=1))
    clip = sorted((SHARED / "clips" / "tennis" / "TennisServe").glob("*"))[0]
    person = read_clip(str(clip), FramePlan.of(spec)).frames[0]
    nobody = np.full_like(person, 90)
    poses = backbone(np.stack([nobody, person, nobody, person]))
    assert not poses[0].any()
    assert not poses[2].any()
    assert poses[1].any()
    np.testing.assert_array_equal(poses[1], poses[3])
    assert backbone.whole_clips
