"""The `pose` backbone: 33 landmarks of the most visible person per frame, by BlazePose.

The detector runs on a clip's first frame; from then on each frame's region comes from the landmarks
of the one before, and the detector runs again only where the person was lost. Needs LiteRT
(extra `pose`) and the two model files; MediaPipe itself is not needed. The geometry is BlazePose's
(arXiv:2006.10204) with the constants of MediaPipe's pose graphs: a region is a turned square around the
hips, as large as the circle that holds the whole person, and the landmark model is shown that square
turned upright.
"""

from __future__ import annotations

import functools
import math
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline import engine
from pipeline.errors import ConfigError
from pipeline.features.backbones.family import Backbone
from pipeline.hushing import hushed
from pipeline.spec import Spec

LANDMARKS = 33
_POINTS = 39  # the landmarks, then six of which the first two are hips and edge
_LEAST_PRESENCE = 0.5


class PoseBackbone(Backbone):
    """BlazePose over one clip at a time.

    One step is (33, 4) float32: x, y as shares of the fitted frame (0..1 inside it), z on the
    scale of x with the hips near 0, negative towards the camera, and visibility 0..1. A frame in
    which no person is detected is all zeros. Values are per frame, not smoothed over time.
    """

    whole_clips = True

    def __init__(self, spec: Spec, files: tuple[Path, Path], *, threads: int) -> None:
        software = {"ai-edge-litert": engine.version("ai-edge-litert")}
        steps = spec.sampling.steps
        super().__init__(spec, engine="litert", batch=steps, concurrency=threads, software=software)
        self._paths = files  # of the detector and the landmark model
        self._mine = threading.local()
        self._models()

    def features_of(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n, 33, 4) float32 of all frames of one clip."""
        features = np.zeros((len(frames), *self.shape), np.float32)
        region: Region | None = None
        for index, frame in enumerate(frames):
            region = region or self._detect(frame)
            if region is not None:
                region = self._follow(frame, region, features[index])
        return features

    def _detect(self, frame: NDArray[np.uint8]) -> Region | None:
        side = (DETECTOR_SIZE, DETECTOR_SIZE)
        small = cv2.resize(frame, side, interpolation=cv2.INTER_AREA)
        picture = np.asarray(small, np.float32) / 127.5 - 1
        outputs = self._models()[0](picture)
        return best_person(outputs[12], outputs[1][:, 0], self.size)

    def _follow(
        self, frame: NDArray[np.uint8], region: Region, out: NDArray[np.float32]
    ) -> Region | None:
        """Write the landmarks in `region` into `out`; the next frame's region, None where lost."""
        outputs = self._models()[1](region.crop(frame))
        if outputs[1][0] < _LEAST_PRESENCE:
            return None
        points = outputs[_POINTS * 5].reshape(_POINTS, 5)
        placed = region.to_frame(points[:, :3])
        out[:, :3] = placed[:LANDMARKS] / self.size
        out[:, 3] = 1 / (1 + np.exp(-np.clip(points[:LANDMARKS, 3], -50, 50)))
        return region_of(placed[LANDMARKS, :2], placed[LANDMARKS + 1, :2])

    def _models(self) -> tuple[_Model, _Model]:
        # An interpreter serves one thread.
        models: tuple[_Model, _Model] | None = getattr(self._mine, "models", None)
        if models is None:
            detector, landmarks = (_Model(path) for path in self._paths)
            models = self._mine.models = (detector, landmarks)
        return models


class _Model:
    """One LiteRT interpreter; calling it gives its outputs by the size of their last axis."""

    def __init__(self, path: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter

        try:
            with hushed():
                self._interpreter: Any = Interpreter(model_path=str(path), num_threads=1)
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            first = str(error).partition("\n")[0].rstrip(".")
            raise ConfigError(
                f"{str(path)!r} is no model that LiteRT can run ({first}): give BlazePose's .tflite"
            ) from None
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = self._interpreter.get_output_details()

    def __call__(self, picture: NDArray[np.float32]) -> dict[int, NDArray[np.float32]]:
        self._interpreter.set_tensor(self._input, picture[None])
        self._interpreter.invoke()
        wanted = [d for d in self._outputs if len(d["shape"]) < 4]
        return {int(d["shape"][-1]): self._interpreter.get_tensor(d["index"])[0] for d in wanted}


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
