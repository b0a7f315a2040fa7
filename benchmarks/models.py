"""Models of one's own beside the bare engine: ten architectures, their rates and their agreement.

    python -m benchmarks.models FOLDER [--rounds 5] [--seconds 3] [--only resnet50,vit_b_16]

FOLDER holds what `benchmarks/export_models.py` wrote. Each model's features in float32 are compared with
those of ONNX Runtime, fed by NumPy; then ours and OpenVINO without us (float32 arrays that lie ready, as
many streams, the same batch and precision) run in turns, and the ratio is the median over the rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.export_models import MODELS
from flows.extract.own_model import model_of
from flows.settings.features import FeaturesSettings
from pipeline import engine
from pipeline.features import backbones
from pipeline.features.backbones import LoadOptions
from pipeline.features.backbones.family import Backbone, BackboneKind
from pipeline.features.backbones.keras_engine import rate
from pipeline.features.backbones.model_checks import cosines, pictures
from pipeline.features.backbones.model_measuring import spec_of
from pipeline.features.backbones.openvino_engine import compiled
from pipeline.openvino_runtime import openvino
from pipeline.spec import Precision


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--only", default=",".join(MODELS))
    arguments = parser.parse_args()
    rows = []
    for name in arguments.only.split(","):
        path = arguments.folder / f"{name}.onnx"
        if not path.exists():
            print(f"{path} is not there: export it first", file=sys.stderr)
            continue
        rows.append(figures(name, path, arguments.rounds, arguments.seconds))
        print(json.dumps(rows[-1]), flush=True)
    print(
        "\n| model | family | TOML lines | step | precision | frames/s | of the bare engine | cosine |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for row in rows:
        print("| " + " | ".join(str(value) for value in row.values()) + " |")
    return 0


def figures(name: str, path: Path, rounds: int, seconds: float) -> dict[str, Any]:
    """One line of the table."""
    settings = FeaturesSettings(backbone=str(path), videos="clips", engine="openvino")
    own = model_of(settings, None, {})
    assert own.trial is not None
    kind = own.kind

    def loaded(precision: Precision) -> Backbone:
        spec = spec_of(kind, own.weights.hash, precision)
        return backbones.load(spec, own.weights, LoadOptions(engine="openvino"))

    cosine = agreement(loaded("float32"), path, kind)
    ours = loaded(own.trial.precision)
    theirs = Bare(path, own.trial.precision, ours.batch, kind)
    ratios, rates = [], []
    for number in range(rounds):
        turns = [rate_of(ours, seconds), theirs.rate(seconds)] if number % 2 else []
        if not turns:
            bare = theirs.rate(seconds)
            turns = [rate_of(ours, seconds), bare]
        rates.append(turns[0] * kind.window)
        ratios.append(turns[0] / turns[1])
    return {
        "model": f"`{name}`",
        "family": MODELS[name][0],
        "toml": len(path.with_suffix(".toml").read_text().splitlines()),
        "step": f"{kind.window} × {kind.size}² → {kind.shape[0]}",
        "precision": own.trial.precision,
        "frames_per_second": round(statistics.median(rates), 1),
        "ratio": round(statistics.median(ratios), 3),
        "cosine": f"{cosine:.6f}",
    }


def rate_of(backbone: Backbone, seconds: float) -> float:
    """Steps per second of as many callers as the backbone wants."""
    return rate(backbone, backbone.concurrency, seconds)


def fed(frames: np.ndarray, kind: BackboneKind) -> np.ndarray:
    """What the model reads, float32 in its own order of axes, by NumPy alone."""
    pre = kind.preprocessing
    assert pre is not None
    values = (frames.astype(np.float64) * pre.scale - pre.mean) / pre.std
    source = "NTHWC" if "T" in pre.layout else "NHWC"
    return np.ascontiguousarray(
        values.transpose([source.index(axis) for axis in pre.layout]), np.float32
    )


def agreement(ours: Backbone, path: Path, kind: BackboneKind) -> float:
    """The least cosine of a step's features to ONNX Runtime's."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    least = 1.0
    for seed in range(2):
        frames = pictures(ours.batch_shape, seed=seed)
        (expected,) = session.run(None, {session.get_inputs()[0].name: fed(frames, kind)})
        least = min(least, float(cosines(ours(frames), expected).min()))
    return least


class Bare:
    """OpenVINO on the same file, without anything of ours around it but how it is compiled."""

    def __init__(self, path: Path, precision: Precision, batch: int, kind: BackboneKind) -> None:
        self._threads = engine.cores()
        model = openvino().Core().read_model(str(path))
        frames = fed(pictures((batch, *_window(kind), kind.size, kind.size, 3)), kind)
        model.reshape(list(frames.shape))
        self._compiled = compiled(model, precision, self._threads)
        self._inputs = [frames.copy() for _ in range(self._threads)]
        self._requests = [self._compiled.create_infer_request() for _ in range(self._threads)]
        for request, one in zip(self._requests, self._inputs, strict=True):
            request.infer([one], share_inputs=True)

    def rate(self, seconds: float) -> float:
        """Steps per second."""
        began, done = time.perf_counter(), [0] * self._threads

        def call(number: int) -> None:
            while time.perf_counter() - began < seconds:
                self._requests[number].infer([self._inputs[number]], share_inputs=True)
                done[number] += len(self._inputs[number])

        threads = [threading.Thread(target=call, args=(n,)) for n in range(self._threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(done) / (time.perf_counter() - began)


def _window(kind: BackboneKind) -> tuple[int, ...]:
    return (kind.window,) if kind.window > 1 else ()


if __name__ == "__main__":
    sys.exit(main())
