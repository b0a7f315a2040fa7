"""Landmarks of a `pose` store → skeletons: the body's posture and motion, wherever it stands.

A step is 104 numbers. 45: fifteen joints, from the middle of the hips, in lengths of the torso, turned
about the vertical, as a clip, until the median line of shoulders and hips lies across. 2: sine and cosine
of a step's own turn against that median. 47: by how much all of these change from step to step. 10: the
angles at elbows, shoulders, hips and knees, and how far the arms are raised.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from pipeline.heads.source import Array, Float32, Float64, Mask

LANDMARKS = (33, 4)
"""The shape of a step of `pose`: x, y, z and visibility of BlazePose's landmarks."""
CHANNELS = 104

_LEFT_SHOULDER, _RIGHT_SHOULDER, _LEFT_HIP, _RIGHT_HIP = 11, 12, 23, 24
_JOINTS = [0, 11, 12, 13, 14, 15, 16, 19, 20, 23, 24, 25, 26, 27, 28]
"""Nose; shoulders, elbows, wrists, index fingers; hips, knees, ankles."""
_ANGLES = [
    *((11, 13, 15), (12, 14, 16)),  # elbows
    *((13, 11, 23), (14, 12, 24)),  # shoulders
    *((11, 23, 25), (12, 24, 26)),  # hips
    *((23, 25, 27), (24, 26, 28)),  # knees
]
_ARMS = [(11, 15), (12, 16)]
_SMOOTH_STEPS = 1.0
_LEAST_TORSO = 1e-3


def skeletons(features: Array, mask: Mask) -> Float32:
    """(n, steps, 104) float32 of landmarks (n, steps, 33, 4) under `mask` (n, steps).

    A step without a person (all zeros) takes the landmarks of the nearest one with a person; a clip
    without any person, and padding, is zero. They do not change with the person's place in
    the picture, size, or turn about the vertical.
    """
    made = np.zeros((*mask.shape, CHANNELS), np.float32)
    for clip, (landmarks, real) in enumerate(zip(features, mask, strict=True)):
        steps = np.flatnonzero(real)
        points = np.asarray(landmarks[steps], np.float64)
        found = np.flatnonzero(points.any(axis=(1, 2)))
        if len(found):
            made[clip, steps] = _skeleton(points[_nearest(found, len(steps)), :, :3])
    return made


def _nearest(found: npt.NDArray[np.int64], steps: int) -> npt.NDArray[np.int64]:
    """(steps,): the nearest of the steps that were found, the earlier of two."""
    distance = np.abs(np.arange(steps)[:, None] - found)
    return np.asarray(found[distance.argmin(1)], np.int64)


def _skeleton(points: Float64) -> Float64:
    """(steps, 104) of (steps, 33, 3)."""
    points = _smoothed(points)
    hips = points[:, [_LEFT_HIP, _RIGHT_HIP]].mean(1)
    shoulders = points[:, [_LEFT_SHOULDER, _RIGHT_SHOULDER]].mean(1)
    torso = float(np.median(np.linalg.norm(shoulders - hips, axis=1)))
    body = (points - hips[:, None]) / max(torso, _LEAST_TORSO)
    across = body[:, _LEFT_SHOULDER] - body[:, _RIGHT_SHOULDER]
    across = across + body[:, _LEFT_HIP] - body[:, _RIGHT_HIP]
    yaw = np.arctan2(across[:, 2], across[:, 0])
    # The clip as a whole is turned, not each step: how the trunk turns is a part of an action.
    facing = float(np.median(np.unwrap(yaw)))
    joints = _turned(body, -facing)[:, _JOINTS].reshape(len(body), -1)
    own = yaw - facing
    posture = np.concatenate([joints, np.sin(own)[:, None], np.cos(own)[:, None]], 1)
    change = np.gradient(posture, axis=0) if len(posture) > 1 else np.zeros_like(posture)
    return np.concatenate([posture, change, _angles(body)], 1)


def _smoothed(points: Float64) -> Float64:
    """Averaged over the steps by a Gaussian."""
    steps = np.arange(len(points))
    weights = np.exp(-0.5 * ((steps[:, None] - steps) / _SMOOTH_STEPS) ** 2)
    weights /= weights.sum(1, keepdims=True)
    averaged: Float64 = np.einsum("st,tjk->sjk", weights, points)
    return averaged


def _turned(body: Float64, angle: float) -> Float64:
    """Turned about the vertical by an angle, from x towards z."""
    cos, sin = math.cos(angle), math.sin(angle)
    x, y, z = np.moveaxis(body, -1, 0)
    return np.stack([cos * x - sin * z, y, sin * x + cos * z], -1)


def _angles(body: Float64) -> Float64:
    """(steps, 10) radians: at the joints, 0 folded to π straight; of the arms, π/2 straight up."""
    values = []
    for first, joint, last in _ANGLES:
        one, other = body[:, first] - body[:, joint], body[:, last] - body[:, joint]
        cross = np.linalg.norm(np.cross(one, other), axis=1)
        values.append(np.arctan2(cross, (one * other).sum(1)))
    for shoulder, wrist in _ARMS:
        x, down, z = (body[:, wrist] - body[:, shoulder]).T
        values.append(np.arctan2(-down, np.hypot(x, z)))
    return np.stack(values, 1)
