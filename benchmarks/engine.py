"""The CNN alone: frames/s of InceptionV3 by every way that one would pick, and by ours.

Seeded random weights and pixels: neither changes the cost. Every way has a process of its own with
all cores; they alternate. PyTorch's ways need an environment of their own, with torch and torchvision:
name its Python, else they are listed as not measured.

    python -m benchmarks.engine [--rounds 5] [--seconds 4] [--torch-python FILE]
"""

from __future__ import annotations

import argparse
import os
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.alternating import compare, rates, ratio, save, serve, table
from pipeline import engine
from pipeline.features import backbones
from pipeline.features.backbones import resolve_weights
from pipeline.features.backbones.keras_model import build_model
from pipeline.features.backbones.openvino_engine import cached_model
from pipeline.spec import Precision, Spec

SIZE = 299
WAYS = {
    "per_frame": "Keras `predict`, a frame at a time (the tutorials)",
    "predict": "Keras `predict`, a clip of 40 at a time",
    "tf8": "`tf.function`, float32, batch 8",
    "tf20": "`tf.function`, float32, batch 20",
    "tf40": "`tf.function`, float32, batch 40",
    "tf_bf16": "`tf.function`, bfloat16, batch 16",
    "bare": "bare OpenVINO, bfloat16, its own asynchronous queue",
    "torch_eager": "torchvision, eager, float32, batch 8",
    "torch_compiled": "torchvision, `torch.compile` with freezing, bfloat16, batch 16",
    "ours32": "ours, float32",
    "ours": "ours, bfloat16",
}
TORCH = ("torch_eager", "torch_compiled")
VARIABLE = "BENCH_TORCH_PYTHON"

Runner = Callable[[], int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--torch-python", default=os.environ.get(VARIABLE, ""), metavar="FILE")
    parser.add_argument("--way", choices=WAYS)
    arguments = parser.parse_args()
    if arguments.way:
        serve(lambda: _timed(_PREPARE[arguments.way](), arguments.seconds))
        return
    ways = dict(WAYS)
    if "bfloat16" not in engine.precisions():
        narrow = ("ours", "bare", "tf_bf16", "torch_compiled")
        ways = {way: text for way, text in WAYS.items() if way not in narrow}
    if not arguments.torch_python:
        ways = {way: text for way, text in ways.items() if way not in TORCH}
    seconds = str(arguments.seconds)
    peers = str(Path(__file__).with_name("torch_peers.py"))
    programs = {way: [arguments.torch_python, "-P", peers, way, seconds] for way in TORCH}
    report = compare(__file__, ways, ["--seconds", seconds], arguments.rounds, programs)
    figures = {"ways": report}
    save("engine", figures)
    print(shown(figures))


def shown(figures: dict[str, Any]) -> str:
    """The table, and ours beside TensorFlow's best float32 and beside the bare engine."""
    report = figures["ways"]
    ours = ours_of(report)
    best = best_float32(report)
    said = f"ours is {ratio(report, ours, best):.2f} times TensorFlow's best float32 ({WAYS[best]})"
    if "bare" in report:
        said += f" and {ratio(report, ours, 'bare'):.2f} of bare OpenVINO"
    torch = [way for way in TORCH if way in report]
    for way in torch:
        said += f", {ratio(report, ours, way):.2f} of {WAYS[way]}"
    parts = [
        f"InceptionV3, {SIZE}×{SIZE}, {len(report[ours]['rounds'])} rounds",
        table(report, WAYS, "frames/s", ours),
        said,
    ]
    if not torch:
        parts.append("PyTorch: not measured, no environment with it was named (--torch-python)")
    return "\n\n".join(parts)


def ours_of(report: dict[str, Any]) -> str:
    """Our way of this machine: in bfloat16 where it was run."""
    return "ours" if "ours" in report else "ours32"


def best_float32(report: dict[str, Any]) -> str:
    """The fastest of TensorFlow's ways in float32."""
    return max(("tf8", "tf20", "tf40"), key=lambda way: statistics.median(rates(report, way)))


def cnn_cpu_ms(seconds: float = 5.0) -> float:
    """CPU milliseconds that our engine spends on a frame in this process, all threads together."""
    precision = "bfloat16" if "bfloat16" in engine.precisions() else "float32"
    return _timed(_ours(precision), seconds)()["cpu_ms"]


def _timed(run: Runner, seconds: float) -> Callable[[], dict[str, float]]:
    run()

    def one_round() -> dict[str, float]:
        frames, began, cpu = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() - began < seconds:
            frames += run()
        wall = time.perf_counter() - began
        return {"rate": frames / wall, "cpu_ms": (time.process_time() - cpu) / frames * 1000}

    return one_round


def _noise(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)


def _predict(count: int) -> Runner:
    """As written in the tutorials: the application model, its preprocessing, `predict`."""
    engine.prepare()
    import keras

    model = keras.applications.InceptionV3(include_top=False, weights=None, pooling="avg")
    scale = keras.applications.inception_v3.preprocess_input
    frames = _noise(count)

    def run() -> int:
        model.predict(scale(frames.astype(np.float32)), verbose=0)
        return count

    return run


def _tensorflow(batch: int, precision: Precision) -> Runner:
    engine.prepare()
    weights = resolve_weights("random", "inception_v3")
    model = build_model("inception_v3", size=SIZE, weights=weights, precision=precision)
    function = engine.compiled(model, (batch, SIZE, SIZE, 3), dtype="uint8")
    frames = _noise(batch)

    def run() -> int:
        function(frames)
        return batch

    return run


def _spec(precision: Precision) -> tuple[Spec, Any]:
    weights = resolve_weights("random", "inception_v3")
    return Spec(weights=weights.hash, precision=precision), weights


def _bare() -> Runner:
    """OpenVINO as its `benchmark_app` runs it: throughput hint, its own streams, an async queue."""
    import openvino as ov

    core = ov.Core()
    model = core.read_model(cached_model(*_spec("bfloat16")))
    model.reshape([8, SIZE, SIZE, 3])
    hints = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "bf16"}
    queue = ov.AsyncInferQueue(core.compile_model(model, "CPU", hints))
    frames = _noise(8)

    def run() -> int:
        for _ in range(8):
            queue.start_async([frames], share_inputs=True)
        queue.wait_all()
        return 64

    return run


def _ours(precision: Precision) -> Runner:
    backbone = backbones.load(*_spec(precision))
    frames = _noise(backbone.batch)
    calls = 4

    def caller() -> None:
        for _ in range(calls):
            backbone(frames)

    def run() -> int:
        threads = [threading.Thread(target=caller) for _ in range(backbone.concurrency)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return calls * len(threads) * len(frames)

    return run


_PREPARE: dict[str, Callable[[], Runner]] = {
    "per_frame": lambda: _predict(1),
    "predict": lambda: _predict(40),
    "tf8": lambda: _tensorflow(8, "float32"),
    "tf20": lambda: _tensorflow(20, "float32"),
    "tf40": lambda: _tensorflow(40, "float32"),
    "tf_bf16": lambda: _tensorflow(16, "bfloat16"),
    "bare": _bare,
    "ours32": lambda: _ours("float32"),
    "ours": lambda: _ours("bfloat16"),
}

if __name__ == "__main__":
    main()
