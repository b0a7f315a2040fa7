"""The `pose` backbone as it is registered: its kind, its two model files, how it is loaded."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pipeline.errors import WeightsNotFound
from pipeline.features.backbones.family import BackboneKind, Family, LoadOptions, Weights
from pipeline.features.backbones.protocol import Backbone
from pipeline.spec import Spec


def load(spec: Spec, weights: Weights, options: LoadOptions) -> Backbone:
    """Load both models. Raises `ConfigError` where LiteRT is missing or a file is no such model."""
    from pipeline.features.backbones.pose import load_pose

    assert weights.path is not None
    return load_pose(spec, pose_files(weights.path), threads=options.threads)


def find_weights(kind: BackboneKind, setting: str, download: bool) -> Weights:
    """The folder of the two model files; its hash is that of the files' hashes, in their order."""
    folder = Path(setting).expanduser()
    try:
        files = pose_files(folder)
    except FileNotFoundError as error:
        raise WeightsNotFound(
            f"there is no {error} in {setting!r}: set WEIGHTS=path/to/folder to one that holds "
            "BlazePose's pose_detection.tflite and pose_landmark_full.tflite"
        ) from None
    both = "".join(Weights.of_file(path).hash for path in files)
    digest = hashlib.sha256(both.encode()).hexdigest()
    return Weights(kind="file", hash=f"sha256:{digest}", path=folder.resolve())


def pose_files(folder: Path) -> tuple[Path, Path]:
    """The detector's and the landmark model's file in a folder.

    Raises `FileNotFoundError`, naming what is missing. Of several landmark models (`lite`,
    `full`, `heavy`) the full one is taken, else the first by name.
    """
    detector = folder / "pose_detection.tflite"
    landmarks = sorted(folder.glob("pose_landmark_*.tflite"))
    if not detector.is_file() or not landmarks:
        raise FileNotFoundError(
            "pose_landmark_full.tflite" if detector.is_file() else detector.name
        )
    return detector, next((path for path in landmarks if "full" in path.name), landmarks[0])


FAMILY = Family(
    kinds={
        "pose": BackboneKind(
            name="pose",
            # The person is cut out of this at 256 pixels; the detector sees it at 224.
            size=384,
            shape=(33, 4),
            dtype="float32",
            one_line="33 body landmarks (x, y, z, visibility) of one person, by BlazePose",
        )
    },
    find_weights=find_weights,
    load=load,
)
