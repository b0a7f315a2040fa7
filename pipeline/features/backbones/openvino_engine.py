"""A backbone on OpenVINO: the fastest way through a CNN on a CPU (see `benchmarks/engine.py`).

Its model lies on disk, exported once per spec and set of versions. The export runs in a process of its
own (`pipeline.apart`), so that no worker ever holds TensorFlow beside OpenVINO, and lands in the cache
by one rename: two processes that start at once both end with a whole model.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import shutil
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import engine
from pipeline.apart import run_apart
from pipeline.errors import ConfigError
from pipeline.features.backbones.family import Backbone, LoadOptions, Weights, padded
from pipeline.features.backbones.keras_model import build_model
from pipeline.features.files import whole
from pipeline.homes import cache_folder
from pipeline.openvino_runtime import openvino, write_openvino
from pipeline.spec import Precision, Spec

_BATCH = 8
_PRECISIONS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}

# OpenVINO's Python binding initialises itself inside the first inference of a process. Two threads whose
# first calls overlap deadlock (seen with 2026.4: one holds the interpreter's lock, the other the
# binding's), so `load_openvino` makes the first call, one thread at a time.
_FIRST_CALL = threading.Lock()


class OpenVinoBackbone(Backbone):
    """A compiled OpenVINO model.

    One stream of one thread per concurrent caller; every calling thread has its own infer request,
    made on its first call.
    """

    def __init__(
        self,
        spec: Spec,
        compiled: Any,
        *,
        batch: int,
        threads: int,
        software: dict[str, str] | None = None,
    ) -> None:
        if software is None:
            software = engine.software() | openvino_software()
        super().__init__(
            spec, engine="openvino", batch=batch, concurrency=threads, software=software
        )
        self._compiled = compiled
        self._mine = threading.local()

    def features_of(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n, *shape) float32."""
        request = getattr(self._mine, "request", None)
        if request is None:
            request = self._mine.request = self._compiled.create_infer_request()
        request.infer([padded(frames, self.batch)], share_inputs=True)
        # The request's own buffer is overwritten by this thread's next call.
        return np.array(request.get_output_tensor().data[: len(frames)], np.float32)


def available() -> bool:
    """Whether OpenVINO is installed; it is not imported."""
    return importlib.util.find_spec("openvino") is not None


def load_openvino(spec: Spec, weights: Weights, options: LoadOptions) -> OpenVinoBackbone:
    """Compile the backbone of a spec for this CPU, exporting it into the cache folder first if needed.

    The batch is 8 frames unless the options say otherwise.
    """
    batch = options.batch or _BATCH
    threads = options.threads or engine.cores()
    xml = cached_model(spec, weights, options.cache)
    try:
        model = _compile(xml, spec.precision, batch, threads)
    except RuntimeError:
        # A cache entry that another program damaged: export it once more.
        shutil.rmtree(xml.parent, ignore_errors=True)
        cached_model(spec, weights, options.cache)
        model = _compile(xml, spec.precision, batch, threads)
    backbone = OpenVinoBackbone(spec, model, batch=batch, threads=threads)
    warm(backbone)
    return backbone


def warm(backbone: Backbone) -> None:
    """The first call of a backbone, one thread at a time."""
    with _FIRST_CALL:
        backbone(np.zeros((1, *backbone.batch_shape[1:]), np.uint8))


def _compile(xml: Path, precision: Precision, batch: int, threads: int) -> Any:
    model = openvino().Core().read_model(xml)
    size = model.inputs[0].partial_shape[1].get_length()
    model.reshape([batch, size, size, 3])
    return compiled(model, precision, threads)


def compiled(model: Any, precision: Precision, threads: int) -> Any:
    """A model of fixed shapes, compiled for this CPU: one stream of one thread per concurrent caller."""
    return (
        openvino()
        .Core()
        .compile_model(
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
    )


# Part of the cache's key: raise it when `keras_model` builds another graph from the
# same weights, or when it is written by other means.
_GRAPH_VERSION = 2
_XML = "model.xml"


def cached_model(spec: Spec, weights: Weights, folder: Path | None = None) -> Path:
    """The `.xml` of a spec's backbone in the cache, exported first where it is missing.

    `folder` None means `cache_folder()`. Precision, sampling and view are no part of the key: one
    exported model serves them all. Raises `ConfigError` where the export fails.
    """
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    facts = {
        "backbone": spec.backbone,
        "size": spec.size,
        "weights": weights.hash,
        # The Python too: what one can export another may not, and a model in the cache would hide it.
        "software": engine.software() | openvino_software() | {"python": python},
        "graph": _GRAPH_VERSION,
    }
    order = {
        "backbone": spec.backbone,
        "size": spec.size,
        "weights": {**asdict(weights), "path": weights.path and str(weights.path)},
    }
    return exported(spec.backbone, facts, f"{__name__}:export", order, folder)


def exported(
    name: str, facts: dict[str, Any], program: str, order: dict[str, Any], folder: Path | None
) -> Path:
    """The `.xml` of a model in the cache, written first where it is missing.

    name, facts: what its entry is called, and all that decides what it holds. program: as
    `module:function`, run in a process of its own, which writes `order["xml"]` and is given `order`.
    Raises `ConfigError` where the export fails.
    """
    folder = folder or cache_folder()
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    entry = folder / f"{name}-{digest[:16]}"
    if not (entry / _XML).is_file():
        with one_at_a_time(folder, entry.name) as alone:
            if not (entry / _XML).is_file():
                # With the lock, a temporary folder is a killed export's.
                for leftover in folder.glob(f".{entry.name}.*") if alone else ():
                    if leftover.is_dir():
                        shutil.rmtree(leftover, ignore_errors=True)
                _export(program, order, entry)
    return entry / _XML


def openvino_software() -> dict[str, str]:
    """OpenVINO's version, without importing it."""
    return {"openvino": engine.version("openvino")}


@contextlib.contextmanager
def one_at_a_time(folder: Path, name: str) -> Iterator[bool]:
    """Hold the lock of an entry; yields False where the disk has no file locks."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / f".{name}.lock").open("w")
    except OSError as error:
        raise ConfigError(
            f"the cache folder {str(folder)!r} cannot be written ({error.strerror}): "
            "set XDG_CACHE_HOME to a folder that can"
        ) from None
    with file:
        alone = False
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
            alone = True
        yield alone


def _export(program: str, order: dict[str, Any], entry: Path) -> None:
    with contextlib.suppress(OSError), whole(entry) as making:
        making.mkdir()
        run_apart(program, {**order, "xml": str(making / _XML)})
    if not (entry / _XML).is_file():
        raise ConfigError(
            f"the exported model could not be put into {entry}: "
            "check that the folder can be written"
        )


def export(order: dict[str, Any]) -> None:
    """Build the model that `order` names in float32 and write it to its `xml` path."""
    name, size, weights = order["backbone"], order["size"], Weights(**order["weights"])
    model = build_model(name, size=size, weights=weights, precision="float32")
    write_openvino(model, Path(order["xml"]))
