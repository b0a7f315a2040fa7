"""InceptionV3 as a model of one's own (an ONNX file and four lines of TOML) beside the built-in one.

    python -m benchmarks.own_inception --weights inception.h5 --videos clips/ [--clips 10] [--rounds 5]

Both are computed from the same frames of real clips in float32, and compared step by step; then both
run in the precision that `auto` means here, in turns, and the ratio of their rates is the median over the
rounds. Needs TensorFlow and tf2onnx (extra `onnx`) to write the file.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from flows.extract.own_model import model_of
from flows.extract.request import stage_of
from flows.settings.features import FeaturesSettings
from pipeline.apart import run_apart
from pipeline.features import backbones
from pipeline.features.backbones import LoadOptions
from pipeline.features.backbones.keras_engine import rate
from pipeline.features.backbones.model_checks import cosines
from pipeline.features.catalog import discover
from pipeline.features.decoding.reading import read_clip
from pipeline.features.decoding.values import FramePlan

TOML = """\
scale = "1/127.5"
mean = 1
interpolation = "area"
fit = "crop"
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", required=True, help="a no-top .h5 file of InceptionV3")
    parser.add_argument("--videos", required=True)
    parser.add_argument("--clips", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "inception.onnx"
        write_inception(arguments.weights, model)
        paths = discover(arguments.videos)["path"].tolist()
        spread = np.linspace(0, len(paths) - 1, arguments.clips).astype(int)
        report = compared(model, arguments.weights, [paths[i] for i in spread])
        report |= speeds(model, arguments.weights, arguments.rounds, arguments.seconds)
    print(json.dumps(report, indent=1))
    return 0


def write_inception(weights: str, path: Path) -> None:
    """Export Keras' InceptionV3 without its top, with these weights, and say how it is fed."""
    order = {"weights": os.path.abspath(weights), "path": str(path)}
    run_apart("benchmarks.own_inception:export", order)
    path.with_suffix(".toml").write_text(TOML, encoding="utf-8")


def export(order: dict[str, Any]) -> None:
    """The same, in a process of its own."""
    from pipeline import engine

    engine.prepare()
    import keras

    model = keras.applications.InceptionV3(
        include_top=False, weights=None, pooling="avg", input_shape=(299, 299, 3)
    )
    model.load_weights(order["weights"])
    model(np.zeros((1, 299, 299, 3), np.float32))  # Keras exports to ONNX only what was called
    model.export(order["path"], format="onnx", verbose=False)


def _loaded(backbone: str, weights: str, precision: str) -> tuple[Any, Any]:
    """The spec, and the backbone on OpenVINO."""
    settings = FeaturesSettings(
        backbone=backbone, weights=weights, videos="clips", precision=precision, engine="openvino"
    )
    spec, _, found = stage_of(settings, None)
    return spec, backbones.load(spec, found, LoadOptions(engine="openvino"))


def compared(model: Path, weights: str, clips: list[str]) -> dict[str, Any]:
    """The least cosine over all steps of the clips, in float32."""
    spec, ours = _loaded("inception_v3", weights, "float32")
    own_spec, own = _loaded(str(model), "", "float32")
    same = ("size", "fit", "interpolation", "shape", "sampling", "aspect")
    assert all(getattr(spec, name) == getattr(own_spec, name) for name in same)
    least, steps = 1.0, 0
    for clip in clips:
        frames = read_clip(clip, FramePlan.of(own_spec)).frames
        steps += len(frames)
        pairs = [
            (ours(frames[at : at + 8]), own(frames[at : at + 8])) for at in range(0, len(frames), 8)
        ]
        least = min(least, *(float(cosines(*pair).min()) for pair in pairs))
    return {"clips": len(clips), "steps": steps, "least_cosine": least}


def speeds(model: Path, weights: str, rounds: int, seconds: float) -> dict[str, Any]:
    """Frames per second of both, in turns."""
    settings = FeaturesSettings(backbone=str(model), videos="clips", engine="openvino")
    precision = model_of(settings, None, {}).precision
    both = {
        "built_in": _loaded("inception_v3", weights, precision)[1],
        "own": _loaded(str(model), "", precision)[1],
    }
    rates: dict[str, list[float]] = {name: [] for name in both}
    for number in range(rounds):
        for name in sorted(both, reverse=bool(number % 2)):
            rates[name].append(rate(both[name], both[name].concurrency, seconds))
    ratios = [own / ours for own, ours in zip(rates["own"], rates["built_in"], strict=True)]
    medians = {name: round(statistics.median(values), 2) for name, values in rates.items()}
    return {"precision": precision, "frames_per_second": medians,
            "ratio": round(statistics.median(ratios), 4)}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
