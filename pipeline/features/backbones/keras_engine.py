"""A backbone on Keras: TensorFlow by default, JAX or torch by `KERAS_BACKEND`.

How many threads must call it at once to keep its device busy is measured, and kept.
"""

from __future__ import annotations

import contextlib
import json
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline import engine
from pipeline.features.backbones.family import Backbone, LoadOptions, Weights, padded
from pipeline.features.backbones.keras_model import build_model
from pipeline.homes import cache_folder
from pipeline.plain import json_digest, write_json
from pipeline.spec import Spec

# Larger batches give a CPU nothing; a GPU is not busy below a few hundred frames.
_CPU_BATCH = 16
_GPU_BATCH = 256

Function = Callable[[np.ndarray], np.ndarray]


class KerasBackbone(Backbone):
    """A compiled Keras model.

    compile_for: gives the model's function for a number of frames. Where the device's memory is too
    small for `batch` frames, a call is computed in halves, quarters, …: `step` frames at a time.
    """

    def __init__(
        self,
        spec: Spec,
        compile_for: Callable[[int], Function],
        *,
        batch: int,
        software: dict[str, str] | None = None,
    ) -> None:
        if software is None:
            software = engine.software() | {"batch_normalisation": "folded"}
        name = engine.backend_name()
        super().__init__(spec, engine=name, batch=batch, concurrency=1, software=software)
        self.step = batch
        self._compile_for = compile_for
        self._lock = threading.Lock()
        self._ready: tuple[int, Function] | None = None

    def features_of(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n, *shape) float32."""
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

    def features_of_blocks(self, blocks: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """As `Backbone` has it; on JAX the blocks are brought together on the device."""
        if self.step == self.batch:
            try:
                _, function = self._ready or self._compiled()
                return function(engine.joined(blocks)).astype(np.float32, copy=False)
            except Exception as error:  # whatever the backend raises where its memory is full
                if not engine.is_out_of_memory(error):
                    raise
        return super().features_of_blocks(blocks)  # in parts, if it must be

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


def usual_batch() -> int:
    """Frames per call, on the device that Keras' backend uses here."""
    return _GPU_BATCH if engine.device() == "gpu" else _CPU_BATCH


def load_keras(spec: Spec, weights: Weights, options: LoadOptions) -> KerasBackbone:
    """Build and compile the backbone of a spec on Keras' backend, and run it once.

    The batch is 16 frames on a CPU and 256 on a GPU, unless the options say otherwise. On a GPU, how
    many callers keep it busy is measured, and kept in the cache folder.
    """
    engine.prepare(options.threads)
    gpu = engine.device() == "gpu"
    batch = options.batch or usual_batch()
    model = build_model(
        spec.backbone, size=spec.size, weights=weights, precision=spec.precision, fold=True
    )

    def compile_for(frames: int) -> Function:
        return engine.compiled(model, (frames, spec.size, spec.size, 3), dtype="uint8")

    backbone = KerasBackbone(spec, compile_for, batch=batch)
    backbone(np.zeros((batch, spec.size, spec.size, 3), np.uint8))
    if gpu:
        # While one caller's frames are computed, another's are copied in or their features out.
        if engine.backend_name() == "jax":
            # Every piece of a clip of `steps` frames in a batch is of so many, or a multiple.
            backbone.block = math.gcd(batch, spec.sampling.steps)
        backbone.concurrency = best_callers(backbone, precision=spec.precision, cache=options.cache)
    return backbone


MOST = 4
SECONDS = 0.5
"""How long each number of callers is measured."""

ENOUGH = 1.04
"""One more caller must give this much more; each holds a batch of frames."""


def best_callers(backbone: Backbone, *, precision: str, cache: Path | None = None) -> int:
    """The smallest number of callers, 1 to 4, that nothing larger beats by 4 %.

    Cached by model, precision, batch, device and versions in `cache` (None: the user's cache), so it is
    measured once. A cache file that cannot be read or written is ignored.
    """
    facts = {
        "backbone": backbone.name,
        "size": backbone.size,
        "batch": backbone.batch,
        "precision": precision,
        "device": engine.device_name(),
        "software": backbone.software,
    }
    file = (cache or cache_folder()) / "callers" / f"{json_digest(facts)[:16]}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        callers = int(json.loads(file.read_text())["callers"])
        if 1 <= callers <= MOST:
            return callers
    rate(backbone, MOST)  # the first calls find cold memory
    rates = {callers: rate(backbone, callers) for callers in range(1, MOST + 1)}
    best = chosen(rates)
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, {**facts, "callers": best, "frames_per_second": rates})
    return best


def chosen(rates: dict[int, float]) -> int:
    """The smallest number of callers whose rate none exceeds by more than 4 %."""
    return min(callers for callers in rates if rates[callers] * ENOUGH >= max(rates.values()))


def rate(backbone: Backbone, callers: int, seconds: float = SECONDS) -> float:
    """Steps per second of this many threads that copy whole batches together and call the backbone."""
    frames = np.random.default_rng(0).integers(0, 256, backbone.batch_shape, np.uint8)
    began = time.perf_counter()

    def call(own: NDArray[np.uint8]) -> int:
        done = 0
        while time.perf_counter() - began < seconds:
            own[:] = frames  # as frames of several clips are brought together
            done += len(backbone(own))
        return done

    with ThreadPoolExecutor(callers) as threads:
        done = sum(threads.map(call, [np.empty_like(frames) for _ in range(callers)]))
    return done / (time.perf_counter() - began)
