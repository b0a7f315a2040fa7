"""Which files the `pose` first stage is made of."""

from __future__ import annotations

from pathlib import Path


def pose_files(folder: Path) -> tuple[Path, Path]:
    """The detector's and the landmark model's file in a folder.

    Raises `FileNotFoundError`, naming what is missing. Of several landmark models (`lite`,
    `full`, `heavy`) the full one is taken, else the first by name.
    """
    detector = folder / "pose_detection.tflite"
    found = sorted(folder.glob("pose_landmark_*.tflite"))
    if not detector.is_file() or not found:
        raise FileNotFoundError(
            "pose_landmark_full.tflite" if detector.is_file() else detector.name
        )
    return detector, next((path for path in found if "full" in path.name), found[0])
