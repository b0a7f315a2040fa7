"""The `motion` backbone reads what was painted: clips whose motion is known, and what is odd."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from pipeline.features.backbones import describe, load
from pipeline.features.backbones.motion import MotionBackbone, boxes, without_camera
from pipeline.features.backbones.motion_channels import CHANNELS, TOWARDS, mirrored
from pipeline.features.backbones.motion_vector import CROP, motion_vector
from pipeline.spec import Spec
from tests.features.moving import (
    PATCH,
    STILL,
    WIDTH,
    Matrix,
    shift,
    steps_of,
    turn,
    zoom,
)

Motion = Callable[[float], Matrix]

TIMES = np.arange(6) * 0.1
SPEED = 0.25
"""Of the patch, in widths of the picture per second."""
PAN = 0.3


def moving(speed: float, towards: str = "x") -> Motion:
    """A shift through the middle of the picture, in widths per second."""
    x, y = (WIDTH, 0) if towards == "x" else (0, WIDTH)
    return lambda time: shift((time - 0.3) * speed * x, (time - 0.3) * speed * y)


def still(time: float) -> Matrix:
    return STILL


def motion_spec(**changes: object) -> Spec:
    kind = describe("motion")
    names = ("size", "fit", "window", "gap_s", "shape")
    values = {name: getattr(kind, name) for name in names} | {"aspect": "display"} | changes
    return Spec(backbone="motion", **values)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def backbone() -> MotionBackbone:
    loaded = load(motion_spec(), None)
    assert isinstance(loaded, MotionBackbone)
    return loaded


def read(vectors: np.ndarray, name: str) -> float:
    """A statistic's mean over the steps."""
    return float(vectors[:, CHANNELS.index(f"stat_{name}")].mean())


def directions(vectors: np.ndarray) -> dict[str, float]:
    """Which share of the flow goes where, over all cells and steps."""
    shares = (vectors[:, :81] ** 2).reshape(len(vectors), 9, 9).mean(0).sum(0)
    return dict(zip((*TOWARDS, "still"), shares.tolist(), strict=True))


def flows(backbone: MotionBackbone, frames: np.ndarray) -> np.ndarray:
    """(n, height, width, 2) in widths per second, the camera's motion taken out."""
    return np.stack([backbone._flow(*pair) for pair in frames]) / (0.1 * WIDTH)


@pytest.mark.parametrize(
    ("patch", "towards", "axis"),
    [(moving(SPEED), "right", "u"), (moving(SPEED, "y"), "down", "v")],
    ids=["right", "down"],
)
@pytest.mark.parametrize("pan", [0.0, PAN])
def test_a_patch_that_moves_is_read_whether_the_camera_stands_or_pans(
    backbone: MotionBackbone, patch: Motion, towards: str, axis: str, pan: float
) -> None:
    """Its direction, its speed to 15 %, its size and place; across it less than 3 % of that speed."""

    def panned(motion: Motion) -> Motion:
        return lambda time: motion(time) + moving(-pan)(time) - STILL

    frames = steps_of(panned(still), panned(patch), TIMES)
    centres, side = boxes(flows(backbone, frames))
    vectors = backbone(frames)
    shares = directions(vectors)
    assert shares[towards] > 0.8
    assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
    across = {"u": "v", "v": "u"}[axis]
    # The flow is in sides of the crop: its side brings it back to widths of the picture.
    assert read(vectors, axis) * side / WIDTH == pytest.approx(SPEED, rel=0.15)
    assert abs(read(vectors, across)) < 0.03 * read(vectors, axis)
    assert 2 * PATCH < side < 3 * PATCH
    assert np.abs(centres - [(WIDTH - 1) / 2, 53.5]).max() < 8
    assert read(vectors, "centre_x") == pytest.approx(0.5, abs=0.03)
    assert read(vectors, "centre_y") == pytest.approx(0.5, abs=0.03)
    assert 0.15 < read(vectors, "spread_x") < 0.25
    share = np.expm1(read(vectors, "moving_share")) / 10
    assert share == pytest.approx(np.pi * PATCH**2 / side**2, rel=0.4)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_patch_that_grows_or_turns_is_read_as_divergence_or_curl(
    backbone: MotionBackbone, sign: int
) -> None:
    """The one has the painted sign and is at least four times the other; it moves all ways alike."""
    growing = backbone(steps_of(still, lambda t: zoom(1 + 0.8 * sign * (t - 0.3)), TIMES))
    turning = backbone(steps_of(still, lambda t: turn(sign * (t - 0.3)), TIMES))
    assert read(growing, "divergence") * sign > 0.004
    assert read(turning, "curl") * sign > 0.004
    assert abs(read(growing, "curl")) < abs(read(growing, "divergence")) / 4
    assert abs(read(turning, "divergence")) < abs(read(turning, "curl")) / 4
    for vectors in (growing, turning):
        assert all(0.05 < directions(vectors)[towards] < 0.2 for towards in TOWARDS)
        assert abs(read(vectors, "u")) + abs(read(vectors, "v")) < 0.06
    # What turns changes across its direction, what grows along it.
    assert read(growing, "divergence_abs_mean") > 3 * read(growing, "curl_abs_mean")
    assert read(turning, "curl_abs_mean") > 3 * read(turning, "divergence_abs_mean")


@pytest.mark.parametrize(
    "camera",
    [
        still,
        moving(PAN),
        moving(PAN, "y"),
        lambda time: zoom(1 + 0.3 * (time - 0.3)),
        lambda time: turn(0.3 * (time - 0.3)),
    ],
    ids=["still", "pan", "tilt", "zoom", "roll"],
)
def test_a_scene_that_only_the_camera_moves_is_still(
    backbone: MotionBackbone, camera: Motion
) -> None:
    """But for 4 % of the pixels: those at the edge, where the picture comes in from outside."""
    frames = steps_of(camera, camera, TIMES)
    speed = np.linalg.norm(flows(backbone, frames), axis=-1)
    assert (speed > 0.05).mean() < 0.04
    assert (speed[:, 8:-8, 8:-8] > 0.05).mean() < 0.002


def test_a_still_clip_is_still_everywhere(backbone: MotionBackbone) -> None:
    for frames in (steps_of(still, still, TIMES), np.zeros((3, 2, 108, 192, 3), np.uint8)):
        vectors = backbone(frames)
        assert directions(vectors)["still"] == pytest.approx(1, abs=1e-5)
        statistics = dict.fromkeys(CHANNELS[243:], 0.0)
        statistics |= {"stat_centre_x": 0.5, "stat_centre_y": 0.5}
        np.testing.assert_allclose(vectors[0, 243:], list(statistics.values()))


def test_speeds_are_per_second(backbone: MotionBackbone) -> None:
    """The same motion seen over half the time gives the same numbers, to 10 %."""
    whole = backbone(steps_of(still, moving(SPEED), TIMES), np.full(6, 0.1))
    half = backbone(steps_of(still, moving(SPEED), TIMES, gap_s=0.05), np.full(6, 0.05))
    assert read(half, "u") == pytest.approx(read(whole, "u"), rel=0.1)


def test_the_numbers_of_a_known_field_are_what_they_must_be() -> None:
    """Against values worked out by hand: everything moves right, half as fast in the lower half."""
    flow = np.zeros((CROP, CROP, 2), np.float32)
    flow[..., 0] = 1.0
    flow[CROP // 2 :, :, 0] = 0.5
    vector = dict(zip(CHANNELS, motion_vector(flow), strict=True))
    # By rows of cells 16 · 1, 8 · 1 + 8 · 0.5 and 16 · 0.5, of 36 in all, in three columns.
    for row, weight in enumerate((16, 12, 8)):
        assert vector[f"hof_{row}1_right"] == pytest.approx(np.sqrt(weight / 36 / 3), abs=1e-5)
    assert vector["hof_00_still"] == vector["hof_11_down"] == 0
    assert vector["stat_speed_mean"] == pytest.approx(np.log1p(20 * 0.75))
    assert vector["stat_speed_std"] == pytest.approx(np.log1p(20 * 0.25))
    assert vector["stat_speed_q99"] == pytest.approx(np.log1p(20))
    assert vector["stat_moving_share"] == pytest.approx(np.log1p(10))
    assert vector["stat_u"] == pytest.approx((1 * 1 + 0.5 * 0.5) / 1.5)
    assert vector["stat_v"] == vector["stat_divergence"] == 0
    assert vector["stat_centre_x"] == pytest.approx(0.5)
    assert vector["stat_centre_y"] == pytest.approx((0.25 * 1 + 0.75 * 0.5) / 1.5)
    # The gradient of u points up at the two rows of pixels where it halves: 0.25 a pixel there.
    assert vector["stat_curl_abs_mean"] == pytest.approx(np.log1p(20 * 0.25 * 2 / CROP), rel=1e-5)
    up = [vector[f"mbh_u_1{column}_up"] ** 2 for column in range(3)]
    moving = CROP * 2 * 0.25
    assert sum(up) == pytest.approx(moving / (moving + CROP * (CROP - 2) * 0.005), rel=1e-5)
    assert sum(vector[f"mbh_v_{r}{c}_still"] ** 2 for r in range(3) for c in range(3)) > 0.9999


def test_a_direction_between_two_is_shared_by_them() -> None:
    angle = np.deg2rad(30)  # two thirds of the way from right to right_down
    flow = np.zeros((CROP, CROP, 2), np.float32) + np.float32([np.cos(angle), np.sin(angle)])
    vector = dict(zip(CHANNELS, motion_vector(flow), strict=True))
    assert vector["hof_00_right"] ** 2 == pytest.approx(1 / 27, abs=1e-5)
    assert vector["hof_00_right_down"] ** 2 == pytest.approx(2 / 27, abs=1e-5)


def test_a_mirrored_field_has_the_mirrored_vector_exactly() -> None:
    field = np.random.default_rng(3).normal(0, 0.5, (CROP, CROP, 2)).astype(np.float32)
    field = cv2.GaussianBlur(field, (0, 0), 2)
    vector = motion_vector(field)
    exchanged = motion_vector(np.ascontiguousarray(field[:, ::-1]) * np.float32([-1, 1]))
    np.testing.assert_allclose(exchanged, mirrored(vector), atol=2e-6)
    np.testing.assert_allclose(mirrored(mirrored(vector)), vector, atol=1e-7)
    assert np.abs(exchanged - vector).max() > 0.1


@pytest.mark.parametrize(
    "patch",
    [moving(SPEED), moving(SPEED, "y"), lambda t: turn(t - 0.3)],
    ids=["right", "down", "turn"],
)
def test_a_mirrored_clip_has_the_mirrored_vector(backbone: MotionBackbone, patch: Motion) -> None:
    """Within 0.06: the flow's own search runs from left to right."""
    frames = steps_of(still, patch, TIMES)
    plain, mirror = backbone(frames), backbone(np.ascontiguousarray(frames[:, :, :, ::-1]))
    np.testing.assert_allclose(mirror.mean(0), mirrored(plain).mean(0), atol=0.06)


def test_threads_do_not_change_a_bit(backbone: MotionBackbone) -> None:
    frames = steps_of(moving(PAN), moving(SPEED), TIMES)
    alone = backbone(frames)
    try:
        for threads in (2, 8):
            cv2.setNumThreads(threads)
            np.testing.assert_array_equal(backbone(frames), alone)
    finally:
        cv2.setNumThreads(1)
    with ThreadPoolExecutor(3) as callers:
        for vectors in callers.map(backbone, [frames] * 6):
            np.testing.assert_array_equal(vectors, alone)
    np.testing.assert_array_equal(load(motion_spec(), None)(frames), alone)


@pytest.mark.parametrize(
    "size", [(192, 192), (1, 192), (192, 1), (107, 192), (192, 3), (15, 192), (192, 17)]
)
def test_pictures_of_any_shape_give_finite_numbers(
    backbone: MotionBackbone, size: tuple[int, int]
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2, 2, *size, 3), np.uint8)
    for frames in (noise, noise * 0, noise * 0 + 255):
        vectors = backbone(frames, np.zeros(2))
        assert np.isfinite(vectors.astype(np.float16)).all()


@pytest.mark.parametrize("shape", [(2, 100, 191, 3), (2, 192, 193, 3), (1, 108, 192, 3)])
def test_other_frames_are_refused(backbone: MotionBackbone, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"takes \(n, 2, up to 192, up to 192, 3\)"):
        backbone(np.zeros((1, *shape), np.uint8))


def test_flow_without_points_to_fit_is_left_as_it_is() -> None:
    flow = np.ones((4, 4, 2), np.float32)
    np.testing.assert_array_equal(without_camera(flow), flow)
