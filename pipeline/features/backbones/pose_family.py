"""The `pose` backbone as it is registered: its kind, its two model files, how it is loaded."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from pipeline import engine
from pipeline.errors import ConfigError, WeightsNotFound
from pipeline.features.backbones.family import Backbone, BackboneKind, Family, LoadOptions, Weights
from pipeline.spec import Spec


def load(spec: Spec, weights: Weights, options: LoadOptions) -> Backbone:
    """Load the detector and the landmark model; as many clips at once as the options have threads.

    Raises `ConfigError` where LiteRT is missing or a file is no such model.
    """
    if importlib.util.find_spec("ai_edge_litert") is None:
        raise ConfigError(
            "backbone pose needs LiteRT, which is not installed: "
            'pip install -e ".[pose]" in the project\'s folder'
        )
    if spec.precision != "float32":
        raise ConfigError(f"pose computes in float32, not in {spec.precision}: use float32")
    from pipeline.features.backbones.pose import PoseBackbone

    assert weights.path is not None
    threads = options.threads or engine.cores()
    return PoseBackbone(spec, pose_files(weights.path), threads=threads)


def find_weights(kind: BackboneKind, setting: str, download: bool) -> Weights:
    """The folder of the two model files; its hash is that of the files' hashes, in their order."""
    folder = Path(setting).expanduser()
    both = "".join(Weights.of_file(path).hash for path in pose_files(folder))
    digest = hashlib.sha256(both.encode()).hexdigest()
    return Weights(kind="file", hash=f"sha256:{digest}", path=folder.resolve())


def pose_files(folder: Path) -> tuple[Path, Path]:
    """The detector's and the landmark model's file in a folder.

    Raises `WeightsNotFound`, naming what is missing. Of several landmark models (`lite`,
    `full`, `heavy`) the full one is taken, else the first by name.
    """
    detector = folder / "pose_detection.tflite"
    landmarks = sorted(folder.glob("pose_landmark_*.tflite"))
    if not detector.is_file() or not landmarks:
        missing = "pose_landmark_full.tflite" if detector.is_file() else detector.name
        raise WeightsNotFound(
            f"there is no {missing} in {str(folder)!r}: set WEIGHTS=path/to/folder to one that holds "
            "BlazePose's pose_detection.tflite and pose_landmark_full.tflite"
        )
    return detector, next((path for path in landmarks if "full" in path.name), landmarks[0])


FAMILY = Family(
    kinds={
        "pose": BackboneKind(
            name="pose",
            # The person is cut out of this at 256 pixels; the detector sees it at 224.
            size=384,
            shape=(33, 4),
            dtype="float16",
            one_line="33 landmarks of the most visible person, by BlazePose",
        )
    },
    find_weights=find_weights,
    load=load,
)
