"""The `motion` backbone: dense optical flow between two frames a tenth of a second apart, per step.

Flow by DIS (Kroeger et al., 2016), camera motion taken out by a similarity transform (RANSAC), then a
histogram vector (`motion_vector`) of a crop that follows what moves. Needs no weights.
"""

from __future__ import annotations

import threading
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.features.backbones.family import Backbone
from pipeline.features.backbones.motion_vector import CROP, MOVING, Field, lengths, motion_vector
from pipeline.spec import Spec

_LEAST_GAP_S = 0.01  # frames with time stamps closer than this do not make things infinitely fast
_LEAST_SIDE = (
    16  # pixels that the flow's patches need; smaller pictures are continued at their edge
)
_GRID, _GRID_START = 8, 4  # pixels between the points that the camera's motion is fitted to
_FIT_PX = 0.5
_FIT_ROUNDS = 200
_BLOB_STEPS, _CENTRE_STEPS = 3.0, 2.0  # standard deviations of the smoothing over steps
_SPREAD_TO_SIDE = 4.4
_LEAST_CROP = 24.0  # pixels


class MotionBackbone(Backbone):
    """Optical flow over one clip at a time: (n, 2, height, width, 3) → (n, 261) float32.

    The numbers do not depend on OpenCV's threads, on other clips or on the caller's thread.
    """

    whole_clips = True

    def __init__(self, spec: Spec, *, threads: int) -> None:
        software = {"opencv": cv2.__version__}
        steps = spec.sampling.steps
        super().__init__(spec, engine="opencv", batch=steps, concurrency=threads, software=software)
        self._gap_s = spec.gap_s
        self._mine = threading.local()
        # Each caller has a core of its own.
        cv2.setNumThreads(1)

    def features_of(self, frames: NDArray[np.uint8]) -> Field:
        """(n, 261) of the two frames of every step of a clip, as far apart as the spec has it."""
        return self.features_in_time(frames, np.full(len(frames), self._gap_s))

    def features_in_time(self, frames: NDArray[np.uint8], gaps_s: NDArray[np.float64]) -> Field:
        """(n, 261) of the two frames of every step of a clip, which are `gaps_s` (n,) apart."""
        flows = np.empty((len(frames), *frames.shape[2:4], 2), np.float32)
        for flow, pair, gap_s in zip(flows, frames, gaps_s, strict=True):
            scale = 1 / (max(gap_s, _LEAST_GAP_S) * self.size)
            np.multiply(self._flow(*pair), np.float32(scale), out=flow)
        centres, side = boxes(flows)
        crops = (cropped(flow, centre, side) for flow, centre in zip(flows, centres, strict=True))
        return np.stack([motion_vector(crop) for crop in crops])

    def _flow(self, first: NDArray[np.uint8], second: NDArray[np.uint8]) -> Field:
        """(height, width, 2) pixels of motion from one frame to the other, the camera's taken out."""
        grey = [_large_enough(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)) for frame in (first, second)]
        flow = np.asarray(self._dis().calc(*grey, None), np.float32)
        return without_camera(flow[: first.shape[0], : first.shape[1]])

    def _dis(self) -> Any:
        # It keeps buffers: one for each thread.
        dis = getattr(self._mine, "dis", None)
        if dis is None:
            create = cv2.DISOpticalFlow_create  # type: ignore[attr-defined]  # not in its stubs
            dis = self._mine.dis = create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        return dis


def without_camera(flow: Field) -> Field:
    """The flow (height, width, 2) less the turn, zoom and shift that most of the picture shares.

    Nothing is taken out where no such motion fits. OpenCV seeds its RANSAC anew in every call.
    """
    height, width = flow.shape[:2]
    y, x = (np.arange(_GRID_START, length, _GRID) for length in (height, width))
    points = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2).astype(np.float32)
    if len(points) < 2:
        return flow
    moved = points + flow[points[:, 1].astype(int), points[:, 0].astype(int)]
    camera, _ = cv2.estimateAffinePartial2D(
        points, moved, method=cv2.RANSAC, ransacReprojThreshold=_FIT_PX, maxIters=_FIT_ROUNDS
    )
    if camera is None or not np.isfinite(camera).all():
        return flow
    (a, b, right), (c, d, down) = camera
    column, row = np.arange(width), np.arange(height)[:, None]
    left = np.empty_like(flow)
    for axis, (across, along) in enumerate(
        (((a - 1) * column + right, b * row), (c * column + down, (d - 1) * row))
    ):
        shared = across.astype(np.float32) + along.astype(np.float32)
        np.subtract(flow[..., axis], shared, out=left[..., axis])
    return left


def boxes(flows: Field) -> tuple[NDArray[np.float64], float]:
    """Where the crop lies in every step of a clip: (n, 2) centres x, y and the side, in pixels.

    flows: (n, height, width, 2), in longer sides per second. The side is the same in all steps.
    """
    speed = lengths(flows[..., 0], flows[..., 1])
    moving = np.where(speed > MOVING, speed, 0).astype(np.float64)
    over_x = _moments(smoothed(moving.sum(1), _BLOB_STEPS))
    over_y = _moments(smoothed(moving.sum(2), _BLOB_STEPS))
    (x, spread_x), (y, spread_y) = over_x, over_y
    sides = np.maximum(_LEAST_CROP, _SPREAD_TO_SIDE * np.maximum(spread_x, spread_y))
    return smoothed(np.stack([x, y], 1), _CENTRE_STEPS), float(np.median(sides))


def cropped(flow: Field, centre: NDArray[np.float64], side: float) -> Field:
    """(48, 48, 2): the square around a centre, zero outside the picture, in sides per second."""
    scale = side / CROP
    start = centre - (CROP - 1) / 2 * scale
    to_picture = np.array([[scale, 0, start[0]], [0, scale, start[1]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    crop = cv2.warpAffine(flow, to_picture, (CROP, CROP), flags=flags)
    return np.asarray(crop, np.float32) * np.float32(max(flow.shape[:2]) / side)


def smoothed(values: NDArray[np.float64], deviation: float) -> NDArray[np.float64]:
    """(n, k) averaged over the first axis by a Gaussian of this deviation, in steps."""
    steps = np.arange(len(values))
    weights = np.exp(-0.5 * ((steps[:, None] - steps) / deviation) ** 2)
    weights /= weights.sum(1, keepdims=True)
    # Not a matrix product, whose order of sums is the library's choice.
    averaged: NDArray[np.float64] = np.einsum("ij,jk->ik", weights, values)
    return averaged


def _moments(profiles: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each row's places, (n,) pixels; of a row of zeros, as if all of
    it moved alike."""
    still = profiles.sum(1, keepdims=True) == 0
    weights = np.where(still, 1.0, profiles)
    weights /= weights.sum(1, keepdims=True)
    places = np.arange(profiles.shape[1])
    mean = (weights * places).sum(1)
    variance = (weights * (places - mean[:, None]) ** 2).sum(1)
    return mean, np.sqrt(variance)


def _large_enough(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture, continued at its right and lower edge where a side is too short for a patch."""
    height, width = grey.shape
    down, right = max(0, _LEAST_SIDE - height), max(0, _LEAST_SIDE - width)
    if down or right:
        grey = np.pad(grey, ((0, down), (0, right)), "edge")
    return grey
