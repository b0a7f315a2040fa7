"""Keras' ImageNet weights: found in its cache, or fetched into it.

Nothing here imports Keras: a run that has nothing to do must not pay for it, so the file that Keras
would cache is looked for, fetched and checked by the same name, address and checksum.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from pipeline.errors import WeightsNotFound, WeightsUnavailable
from pipeline.features.backbones.keras_models import KERAS_MODELS, KerasModel
from pipeline.homes import keras_home

WEIGHTS_SITE = "https://storage.googleapis.com/"
_CONNECT_S = 15.0


def imagenet_file(backbone: str, *, download: bool) -> Path:
    """The no-top weights file of a model, fetched if it is missing and `download` allows it.

    Raises `WeightsNotFound`, or `WeightsUnavailable` where the site cannot be reached.
    """
    model = KERAS_MODELS[backbone]
    path = keras_home() / "models" / model.cache_name
    if path.is_file():
        return path
    if not download:
        raise WeightsNotFound(_not_here(backbone, path, "downloading was not allowed"))
    try:
        _fetch(WEIGHTS_SITE + model.file, path, model)
    except (OSError, urllib.error.URLError) as error:
        raise WeightsUnavailable(_not_here(backbone, path, _cause(error))) from None
    return path


def _not_here(backbone: str, path: Path, why: str) -> str:
    return (
        f"the ImageNet weights of {backbone} are not in {path.parent} and could not be downloaded "
        f"({why}): set WEIGHTS=path/to/file.h5 to a no-top weights file, or WEIGHTS=random to run "
        "without trained weights"
    )


def _cause(error: Exception) -> str:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
    return str(getattr(reason, "strerror", None) or reason).strip().rstrip(".")


def _fetch(url: str, path: Path, model: KerasModel) -> None:
    """Download to a temporary neighbour, check it, then give it its name: never half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with (
            os.fdopen(descriptor, "wb") as file,
            urllib.request.urlopen(url, timeout=_CONNECT_S) as answer,
        ):
            shutil.copyfileobj(answer, file, 1 << 20)
        _check_download(Path(temporary), model.checksum)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _check_download(path: Path, checksum: str) -> None:
    # Keras publishes MD5 for its older models, SHA-256 for the newer ones, and for two none.
    algorithm = "md5" if len(checksum) == 32 else "sha256"
    with path.open("rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if checksum and found != checksum:
        raise OSError(f"the file that came has another {algorithm} than Keras publishes")
