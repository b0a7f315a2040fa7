"""The `pose` backbone: 33 landmarks of the most visible person per frame, by BlazePose.

The detector runs on a clip's first frame; from then on each frame's region comes from the landmarks
of the one before, and the detector runs again only where the person was lost. Needs LiteRT
(extra `pose`) and the two model files; MediaPipe itself is not needed.
"""

from __future__ import annotations

import importlib.util
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline import engine
from pipeline.errors import ConfigError
from pipeline.features.backbones.pose_regions import (
    DETECTOR_SIZE,
    Region,
    best_person,
    region_of,
)
from pipeline.features.backbones.protocol import check_frames
from pipeline.hushing import hushed
from pipeline.spec import Spec

LANDMARKS = 33
_POINTS = 39  # the landmarks, then six of which the first two are hips and edge
_LEAST_PRESENCE = 0.5


class PoseBackbone:
    """BlazePose over one clip at a time, behind the `Backbone` interface.

    One step is (33, 4) float32: x, y as shares of the fitted frame (0..1 inside it), z on the
    scale of x with the hips near 0, negative towards the camera, and visibility 0..1. A frame in
    which no person is detected is all zeros. Values are per frame, not smoothed over time.
    """

    name = "pose"
    engine = "litert"
    shape = (LANDMARKS, 4)
    whole_clips = True

    def __init__(self, detector: Path, landmarks: Path, *, size: int, steps: int, threads: int):
        self.size = size
        self.batch = steps
        self.concurrency = threads
        self.software = {"ai-edge-litert": engine.version("ai-edge-litert")}
        self._paths = (detector, landmarks)
        self._mine = threading.local()
        self._models()

    def __call__(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """`frames`: all of one clip's, (n ≤ batch, size, size, 3) uint8 RGB → (n, 33, 4)."""
        check_frames(frames, size=self.size, batch=self.batch)
        features = np.zeros((len(frames), *self.shape), np.float32)
        region: Region | None = None
        for index, frame in enumerate(frames):
            region = region or self._detect(frame)
            if region is not None:
                region = self._follow(frame, region, features[index])
        return features

    def __repr__(self) -> str:
        shapes = f"(n, {self.size}, {self.size}, 3) → (n, 33, 4)"
        return f"PoseBackbone({shapes}, {self.concurrency} clips at once)"

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


def load_pose(spec: Spec, files: tuple[Path, Path], *, threads: int = 0) -> PoseBackbone:
    """Load the detector and the landmark model; `threads` clips at once (0: one per core).

    Raises `ConfigError` where LiteRT is missing or a file is no such model.
    """
    if importlib.util.find_spec("ai_edge_litert") is None:
        raise ConfigError(
            "backbone pose needs LiteRT, which is not installed: "
            'pip install -e ".[pose]" in the project\'s folder'
        )
    if spec.precision != "float32":
        raise ConfigError(f"pose computes in float32, not in {spec.precision}: use float32")
    return PoseBackbone(
        *files,
        size=spec.size,
        steps=spec.sampling.steps,
        threads=threads or engine.cores(),
    )
