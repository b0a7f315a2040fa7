"""A backbone on Keras: TensorFlow by default, JAX or torch by `KERAS_BACKEND`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline import engine
from pipeline.features.backbones.keras_model import build_model
from pipeline.features.backbones.protocol import check_frames, padded

if TYPE_CHECKING:
    from pipeline.features.weights import Weights
    from pipeline.spec import Spec

# Larger batches give a CPU nothing; a GPU is not busy below a few hundred frames.
_CPU_BATCH = 16
_GPU_BATCH = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class KerasBackbone:
    """A compiled Keras model behind the `Backbone` interface."""

    name: str
    engine: str
    shape: tuple[int, ...]
    size: int
    batch: int
    concurrency: int
    software: dict[str, str]
    function: Callable[[np.ndarray], np.ndarray]
    whole_clips: bool = False

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """`frames`: (n ≤ batch, size, size, 3) uint8 RGB → (n, *shape) float32."""
        check_frames(frames, size=self.size, batch=self.batch)
        features = self.function(padded(frames, self.batch))
        return features[: len(frames)].astype(np.float32, copy=False)

    def __repr__(self) -> str:
        shapes = f"({self.batch}, {self.size}, {self.size}, 3) → {(self.batch, *self.shape)}"
        return f"KerasBackbone({self.name} on {self.engine}: {shapes})"


def load_keras(spec: Spec, weights: Weights, *, batch: int = 0, threads: int = 0) -> KerasBackbone:
    """Build and compile the backbone of a spec on Keras' backend, and run it once.

    `batch` 0 means 16 frames on a CPU, 256 on a GPU; `threads` 0 means every core.
    """
    engine.prepare(threads)
    gpu = engine.device() == "gpu"
    batch = batch or (_GPU_BATCH if gpu else _CPU_BATCH)
    model = build_model(spec.backbone, size=spec.size, weights=weights, precision=spec.precision)
    shape = (batch, spec.size, spec.size, 3)
    function = engine.compiled(model, shape, dtype="uint8")
    function(np.zeros(shape, np.uint8))
    return KerasBackbone(
        name=spec.backbone,
        engine=engine.backend_name(),
        shape=spec.shape,
        size=spec.size,
        batch=batch,
        # On a GPU a second caller copies its frames while the first one's are computed.
        concurrency=2 if gpu else 1,
        software=engine.software(),
        function=function,
    )
