"""Where the person is: detector output → region → crop, and landmarks of the crop → frame.

The geometry of BlazePose (arXiv:2006.10204) with the constants of MediaPipe's pose graphs: a region
is a turned square around the hips, as large as the circle that holds the whole person, and the
landmark model is shown that square turned upright.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.floating[Any]]

DETECTOR_SIZE = 224
CROP_SIZE = 256
_LAYERS = ((8, 2), (16, 2), (32, 6))  # stride in pixels, anchors per cell
_MARGIN = 1.25
_LEAST_SCORE = 0.5
_SAME_PERSON = 0.3  # intersection over union


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A square in a frame, in pixels: centre, side, and how far it is turned (radians).

    The turn is clockwise on the screen; 0 where the person stands upright.
    """

    x: float
    y: float
    side: float
    turn: float

    def crop(self, frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The square turned upright: (256, 256, 3) float32 in 0..1; black outside the frame."""
        scale = CROP_SIZE / self.side
        cos, sin = math.cos(self.turn) * scale, math.sin(self.turn) * scale
        half = CROP_SIZE / 2
        # Rows map a frame's pixel to the crop's: turn back about the centre, then to the middle.
        to_crop = np.array(
            [
                [cos, sin, half - cos * self.x - sin * self.y],
                [-sin, cos, half + sin * self.x - cos * self.y],
            ]
        )
        crop = cv2.warpAffine(frame, to_crop, (CROP_SIZE, CROP_SIZE), flags=cv2.INTER_LINEAR)
        return np.asarray(crop, np.float32) / np.float32(255)

    def to_frame(self, points: Points) -> NDArray[np.float32]:
        """Points of the crop, (n, 3) in its pixels → the frame's pixels; z keeps x's scale."""
        scale = self.side / CROP_SIZE
        x, y = (points[:, :2] - CROP_SIZE / 2).T * scale
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        turned = [self.x + cos * x - sin * y, self.y + sin * x + cos * y, points[:, 2] * scale]
        return np.stack(turned, 1).astype(np.float32)


def region_of(hips: Points, edge: Points) -> Region | None:
    """The region of a person from two points in pixels, (2,) each: the middle of the hips, and
    the point of the surrounding circle that lies beyond the head. None where they coincide.
    """
    across, up = float(edge[0] - hips[0]), float(hips[1] - edge[1])
    radius = math.hypot(across, up)
    if not 1 <= radius < 1e6:
        return None
    turn = math.atan2(across, up)
    return Region(x=float(hips[0]), y=float(hips[1]), side=2 * radius * _MARGIN, turn=turn)


def best_person(boxes: Points, scores: Points, size: int) -> Region | None:
    """The region of the person that the detector is most certain of.

    boxes: (2254, 12), offsets to the anchors in the detector's pixels: centre, size, then four
    points of which the first two are hips and edge. scores: (2254,) before the sigmoid. size: the
    frame's side. Overlapping detections are averaged by their score, as MediaPipe does. None where
    no score reaches 0.5.
    """
    certain = 1 / (1 + np.exp(-np.clip(scores, -80, 80)))
    best = int(certain.argmax())
    if certain[best] < _LEAST_SCORE:
        return None
    chosen = np.flatnonzero(certain >= _LEAST_SCORE)
    anchors = _anchors()[chosen]
    values = boxes[chosen] / DETECTOR_SIZE
    centres, sizes = values[:, :2] + anchors, values[:, 2:4]
    overlap = _overlap(centres, sizes, int(np.flatnonzero(chosen == best)[0]))
    same = overlap > _SAME_PERSON
    weights = certain[chosen][same]
    points = values[same, 4:8].reshape(-1, 2, 2) + anchors[same, None]
    hips, edge = np.average(points, axis=0, weights=weights) * size
    return region_of(hips, edge)


def _overlap(centres: Points, sizes: Points, one: int) -> Points:
    """Intersection over union of every box with box `one`."""
    low, high = centres - sizes / 2, centres + sizes / 2
    shared = np.clip(np.minimum(high, high[one]) - np.maximum(low, low[one]), 0, None).prod(1)
    areas = sizes.prod(1)
    union = np.maximum(areas + areas[one] - shared, 1e-9)
    overlap: Points = shared / union
    overlap[one] = 1
    return overlap


@functools.cache
def _anchors() -> Points:
    """(2254, 2): the middle of every cell, as a share of the picture, x and y."""
    layers = []
    for stride, per_cell in _LAYERS:
        cells = DETECTOR_SIZE // stride
        middles = (np.arange(cells, dtype=np.float32) + 0.5) / cells
        y, x = np.meshgrid(middles, middles, indexing="ij")
        layers.append(np.repeat(np.stack([x.ravel(), y.ravel()], 1), per_cell, axis=0))
    return np.concatenate(layers)
