"""A backbone on Keras: TensorFlow by default, JAX or torch by `KERAS_BACKEND`."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from pipeline import engine
from pipeline.features.backbones.callers import best_callers
from pipeline.features.backbones.family import LoadOptions, Weights
from pipeline.features.backbones.keras_model import build_model
from pipeline.features.backbones.protocol import check_frames, padded
from pipeline.spec import Spec

# Larger batches give a CPU nothing; a GPU is not busy below a few hundred frames.
_CPU_BATCH = 16
_GPU_BATCH = 256

Function = Callable[[np.ndarray], np.ndarray]


class KerasBackbone:
    """A compiled Keras model behind the `Backbone` interface.

    compile_for: gives the model's function for a number of frames. Where the device's memory is too
    small for `batch` frames, a call is computed in halves, quarters, …: `step` frames at a time.
    """

    whole_clips = False

    def __init__(
        self,
        spec: Spec,
        compile_for: Callable[[int], Function],
        *,
        batch: int,
        concurrency: int = 1,
    ) -> None:
        self.name = spec.backbone
        self.engine = engine.backend_name()
        self.shape = spec.shape
        self.size = spec.size
        self.batch = self.step = batch
        self.concurrency = concurrency
        self.software = engine.software() | {"batch_normalisation": "folded"}
        self._compile_for = compile_for
        self._lock = threading.Lock()
        self._ready: tuple[int, Function] | None = None

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """`frames`: (n ≤ batch, size, size, 3) uint8 RGB → (n, *shape) float32."""
        check_frames(frames, size=self.size, batch=self.batch)
        while True:
            step = self.step
            try:
                step, function = self._ready or self._compiled()
                parts = [
                    function(padded(frames[start : start + step], step))
                    for start in range(0, len(frames), step)
                ]
            except Exception as error:
                if step == 1 or not engine.is_out_of_memory(error):
                    raise
                self._halve(step)
            else:
                whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
                return whole[: len(frames)].astype(np.float32, copy=False)

    def __repr__(self) -> str:
        shapes = f"({self.batch}, {self.size}, {self.size}, 3) → {(self.batch, *self.shape)}"
        return f"KerasBackbone({self.name} on {self.engine}: {shapes})"

    def _compiled(self) -> tuple[int, Function]:
        with self._lock:
            if self._ready is None:
                self._ready = self.step, self._compile_for(self.step)
            return self._ready

    def _halve(self, step: int) -> None:
        with self._lock:
            # Another caller may have met the same error, and have halved already.
            if self.step == step:
                self.step = step // 2
                self._ready = None


def load_keras(spec: Spec, weights: Weights, options: LoadOptions) -> KerasBackbone:
    """Build and compile the backbone of a spec on Keras' backend, and run it once.

    The batch is 16 frames on a CPU and 256 on a GPU, unless the options say otherwise. On a GPU, how
    many callers keep it busy is measured, and kept in the cache folder.
    """
    engine.prepare(options.threads)
    gpu = engine.device() == "gpu"
    batch = options.batch or (_GPU_BATCH if gpu else _CPU_BATCH)
    model = build_model(
        spec.backbone, size=spec.size, weights=weights, precision=spec.precision, fold=True
    )

    def compile_for(frames: int) -> Function:
        return engine.compiled(model, (frames, spec.size, spec.size, 3), dtype="uint8")

    backbone = KerasBackbone(spec, compile_for, batch=batch)
    backbone(np.zeros((batch, spec.size, spec.size, 3), np.uint8))
    if gpu:
        # While one caller's frames are computed, another's are copied in or their features out.
        backbone.concurrency = best_callers(backbone, precision=spec.precision, cache=options.cache)
    return backbone
