"""A backbone on OpenVINO: the fastest way through a CNN on a CPU (see `benchmarks/engine.py`)."""

from __future__ import annotations

import importlib.util
import threading
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import engine
from pipeline.features.backbones.family import LoadOptions, Weights
from pipeline.features.backbones.openvino_cache import (
    cached_model,
    forget_model,
    openvino_software,
)
from pipeline.features.backbones.protocol import check_frames, padded
from pipeline.openvino_runtime import openvino
from pipeline.spec import Precision, Spec

_BATCH = 8
_PRECISIONS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}

# OpenVINO's Python binding initialises itself inside the first inference of a process. Two threads whose
# first calls overlap deadlock (seen with 2026.4: one holds the interpreter's
# lock, the other the binding's), so `load_openvino` makes the first call, one thread at a time.
_FIRST_CALL = threading.Lock()


class OpenVinoBackbone:
    """A compiled OpenVINO model behind the `Backbone` interface.

    One stream of one thread per concurrent caller; every calling thread has its own infer request,
    made on its first call.
    """

    engine = "openvino"
    whole_clips = False

    def __init__(self, spec: Spec, compiled: Any, *, batch: int, threads: int) -> None:
        self.name = spec.backbone
        self.shape = spec.shape
        self.size = spec.size
        self.batch = batch
        self.concurrency = threads
        self.software = engine.software() | openvino_software()
        self._compiled = compiled
        self._mine = threading.local()

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """`frames`: (n ≤ batch, size, size, 3) uint8 RGB → (n, *shape) float32."""
        check_frames(frames, size=self.size, batch=self.batch)
        request = getattr(self._mine, "request", None)
        if request is None:
            request = self._mine.request = self._compiled.create_infer_request()
        request.infer([padded(frames, self.batch)], share_inputs=True)
        # The request's own buffer is overwritten by this thread's next call.
        return np.array(request.get_output_tensor().data[: len(frames)], np.float32)

    def __repr__(self) -> str:
        shapes = f"({self.batch}, {self.size}, {self.size}, 3) → {(self.batch, *self.shape)}"
        return f"OpenVinoBackbone({self.name}: {shapes}, {self.concurrency} streams)"


def available() -> bool:
    """Whether OpenVINO is installed; it is not imported."""
    return importlib.util.find_spec("openvino") is not None


def load_openvino(spec: Spec, weights: Weights, options: LoadOptions) -> OpenVinoBackbone:
    """Compile the backbone of a spec for this CPU, exporting it into the cache folder first if needed.

    The batch is 8 frames unless the options say otherwise.
    """
    xml = cached_model(spec, weights, options.cache)
    batch = options.batch or _BATCH
    threads = options.threads or engine.cores()
    try:
        model = _compile(xml, spec.precision, batch, threads)
    except RuntimeError:
        # A cache entry that another program damaged: export it once more.
        forget_model(xml)
        xml = cached_model(spec, weights, options.cache)
        model = _compile(xml, spec.precision, batch, threads)
    backbone = OpenVinoBackbone(spec, model, batch=batch, threads=threads)
    with _FIRST_CALL:
        backbone(np.zeros((1, spec.size, spec.size, 3), np.uint8))
    return backbone


def _compile(xml: Path, precision: Precision, batch: int, threads: int) -> Any:
    core = openvino().Core()
    model = core.read_model(xml)
    size = model.inputs[0].partial_shape[1].get_length()
    model.reshape([batch, size, size, 3])
    return core.compile_model(
        model,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": _PRECISIONS[precision],
            "PERFORMANCE_HINT": "THROUGHPUT",
            "NUM_STREAMS": str(threads),
            "INFERENCE_NUM_THREADS": str(threads),
            # Decoders share the cores: pinned streams would wait behind them.
            "ENABLE_CPU_PINNING": False,
        },
    )
