"""What a worker process keeps from batch to batch: the loaded backbone, its decoders, stop requests."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_lock = threading.Lock()
_extractors: dict[str, Any] = {}
_stops: dict[str, threading.Event] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """How the clips of a run become features; the same for all its batches.

    spec: of the store, as plain values · weights: setting that leads to the weights file ·
    the rest never changes what a feature means.
    """

    spec: dict[str, Any]
    weights: str
    engine: str = "auto"
    cnn_batch: int = 0
    decoders: int = 0
    timeout_s: float = 60.0


def extractor(stage: Stage) -> Any:
    """The process's `Extractor` for this stage: made at the first batch, kept for the others."""
    key = repr(stage)
    with _lock:
        if key not in _extractors:
            for other in _extractors.values():  # one store at a time is the rule: free the memory
                other.close()
            _extractors.clear()
            _extractors[key] = _build(stage)
        return _extractors[key]


def _build(stage: Stage) -> Any:
    from pipeline import engine
    from pipeline.features import backbones
    from pipeline.features.decoding import DecoderPool, FramePlan, Limits
    from pipeline.features.extraction import Extractor
    from pipeline.features.weights import resolve_weights
    from pipeline.spec import Spec

    spec = Spec.from_dict(stage.spec)
    threads = int(os.environ.get("PIXELS_ONCE_THREADS", "0")) or os.cpu_count() or 1
    engine.prepare(threads=threads)
    weights = resolve_weights(stage.weights, spec.backbone)
    backbone = backbones.load(
        spec, weights, engine=stage.engine, batch=stage.cnn_batch, threads=threads,
        cache=cache_folder(),
    )
    pool = DecoderPool(
        FramePlan.of(spec), processes=stage.decoders or threads,
        limits=Limits(base_s=stage.timeout_s),
    )
    return Extractor(spec, backbone, pool)


def cache_folder() -> Path:
    """Where compiled models are kept between runs: PIXELS_ONCE_CACHE, else the user's cache."""
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "pixels-once"
    return Path(os.environ.get("PIXELS_ONCE_CACHE", default))


def stop_event(token: str) -> threading.Event:
    """The event that is set when the run with this token wants its clips in hand to be the last."""
    with _lock:
        return _stops.setdefault(token, threading.Event())


def request_stop(token: str) -> None:
    """Ask the batches of this run, in this process, to finish the clips in hand and return."""
    stop_event(token).set()
