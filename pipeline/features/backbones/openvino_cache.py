"""The backbone as an OpenVINO model on disk: exported once per spec and set of versions.

The export runs in a process of its own, so that no worker ever holds TensorFlow beside OpenVINO,
and lands in the cache by one rename: two processes that start at once both end with a whole model.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import engine
from pipeline.errors import ConfigError
from pipeline.homes import cache_folder

if TYPE_CHECKING:
    from pipeline.features.backbones.family import Weights
    from pipeline.spec import Spec

# Part of the cache's key: raise it when `keras_model` builds another graph from the
# same weights, or when it is written by other means.
_GRAPH_VERSION = 2
_XML = "model.xml"


def cached_model(spec: Spec, weights: Weights, folder: Path | None = None) -> Path:
    """The `.xml` of a spec's backbone in the cache, exported first where it is missing.

    `folder` None means `cache_folder()`. Precision, sampling and view are no part of the key: one
    exported model serves them all. Raises `ConfigError` where the export fails.
    """
    folder = folder or cache_folder()
    entry = folder / _key(spec, weights)
    if not (entry / _XML).is_file():
        with _one_at_a_time(folder, entry.name) as alone:
            if not (entry / _XML).is_file():
                if alone:
                    _sweep(entry)
                _export(spec, weights, entry)
    return entry / _XML


def forget_model(xml: Path) -> None:
    """Drop a model that cannot be read from the cache."""
    shutil.rmtree(xml.parent, ignore_errors=True)


def _key(spec: Spec, weights: Weights) -> str:
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    facts = {
        "backbone": spec.backbone,
        "size": spec.size,
        "weights": weights.hash,
        # The Python too: what one can export another may not, and a model in the cache would hide it.
        "software": engine.software() | openvino_software() | {"python": python},
        "graph": _GRAPH_VERSION,
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return f"{spec.backbone}-{digest[:16]}"


def openvino_software() -> dict[str, str]:
    """OpenVINO's version, without importing it."""
    return {"openvino": engine.version("openvino")}


@contextlib.contextmanager
def _one_at_a_time(folder: Path, name: str) -> Iterator[bool]:
    """Hold the lock of an entry; yields False where the system has no file locks."""
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
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
            alone = True
        yield alone


def _sweep(entry: Path) -> None:
    """Remove the temporary folders of killed exports."""
    for leftover in entry.parent.glob(f".{entry.name}.*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)


def _export(spec: Spec, weights: Weights, entry: Path) -> None:
    temporary = Path(tempfile.mkdtemp(dir=entry.parent, prefix=f".{entry.name}."))
    order = {
        "backbone": spec.backbone,
        "size": spec.size,
        "weights": {**asdict(weights), "path": weights.path and str(weights.path)},
        "xml": str(temporary / _XML),
    }
    command = [sys.executable, "-m", "pipeline.features.backbones.openvino_export"]
    # The path lets a source tree find itself.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        ended = subprocess.run(
            [*command, json.dumps(order)],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
        )
        if ended.returncode:
            raise ConfigError(_last_line(ended.stderr) or f"exit status {ended.returncode}")
        with contextlib.suppress(OSError):
            os.rename(temporary, entry)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    if not (entry / _XML).is_file():
        raise ConfigError(
            f"the exported model could not be put into {entry}: "
            "check that the folder can be written"
        )


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("pipeline.errors.ConfigError: ") if lines else ""
