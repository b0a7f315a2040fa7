"""The JSON of ActivityNet beside an export's arrays, as temporal detection toolkits read it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from flows.exchange.manifest import MANIFEST
from pipeline.plain import whole

ANNOTATIONS = "annotations.json"
_SUBSETS = {"train": "training", "val": "validation", "test": "testing"}


def write_annotations(folder: Path) -> None:
    """Write it from the manifest, clip by clip: the labels' numbers are in the order of first use."""
    labels: dict[str, int] = {}
    with (
        (folder / MANIFEST).open("rb") as lines,
        whole(folder / ANNOTATIONS) as making,
        making.open("w", encoding="utf-8") as out,
    ):
        out.write('{"version": "1.3", "database": {')
        for number, line in enumerate(lines):
            said = json.loads(line)
            times, frames = said["times"], said["frames"]
            fps = said["fps"] or 0.0
            stride = float(np.mean(np.diff(frames))) if len(frames) > 1 else 0.0
            step = float(np.mean(np.diff(times))) if len(times) > 1 else 0.0
            declared = said["frames_declared"]
            # A part of a file begins at its own first frame, or as much before it as steps are apart.
            begins = max(0, frames[0] - round(stride)) if frames else 0
            total = declared if declared > 0 else (frames[-1] + 1 - begins if frames else 0)
            duration = total / fps if fps > 0 else (times[-1] if times else 0.0) + step
            found = []
            if said["label"]:
                index = labels.setdefault(said["label"], len(labels))
                found = [{"segment": [0.0, duration], "label": said["label"], "label_id": index}]
            values = {
                "subset": _SUBSETS.get(said["split"], "training"), "duration": duration, "fps": fps,
                "frame": total, "feat_stride": stride, "num_frames": 1, "annotations": found,
            }  # fmt: skip
            key = said["file"].removesuffix(".npy")
            out.write(f"{',' * bool(number)}\n{json.dumps(key)}: {json.dumps(values)}")
        out.write("\n}}\n")
