"""Which weights a backbone gets: found, fetched, or made from a seed; and their hash for the spec.

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
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.errors import ConfigError, WeightsNotFound, WeightsUnavailable
from pipeline.features.backbones.keras_models import KERAS_MODELS, KerasModel
from pipeline.features.backbones.kinds import describe
from pipeline.features.backbones.pose_files import pose_files
from pipeline.features.files import sha256
from pipeline.homes import keras_home

WEIGHTS_SITE = "https://storage.googleapis.com/"
_CONNECT_S = 15.0
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Weights that can be loaded: from `path`, or made from `seed` where `kind` is "random".

    `hash` is what `Spec.weights` holds: `sha256:<hex>` of the file, `random:<seed>`, or `none`.
    """

    kind: Literal["imagenet", "file", "random", "none"]
    hash: str
    path: Path | None = None
    seed: int = 0

    def __str__(self) -> str:
        return self.hash if self.path is None else f"{self.path} ({self.hash[:19]}…)"


def resolve_weights(weights: str, backbone: str, *, download: bool = True) -> Weights:
    """Find the weights that a user named, and hash them.

    `weights` is "imagenet" (the file that Keras caches under `KERAS_HOME` or `~/.keras`, fetched
    there if it is missing and `download` allows it), a path to a no-top `.h5` or `.weights.h5`
    file, "random" or "random:SEED". A backbone without weights takes any of these and uses
    none; `pose` takes the folder that holds its two files and nothing else.

    Raises `WeightsNotFound`, which names both ways out, and `ConfigError` for a file that cannot
    be a Keras weights file or a seed that is no whole number.
    """
    kind = describe(backbone)
    if not kind.needs_weights:
        return Weights(kind="none", hash="none")
    if kind.family == "pose":
        return _pose_weights(weights)
    if weights == "imagenet":
        path = _imagenet_file(backbone, download=download)
        return Weights(kind="imagenet", hash=file_hash(path), path=path)
    if weights == "random" or weights.startswith("random:"):
        seed = _seed(weights)
        return Weights(kind="random", hash=f"random:{seed}", seed=seed)
    path = Path(weights).expanduser()
    _check_file(path, weights)
    return Weights(kind="file", hash=file_hash(path), path=path.resolve())


def _pose_weights(weights: str) -> Weights:
    folder = Path(weights).expanduser()
    try:
        files = pose_files(folder)
    except FileNotFoundError as error:
        raise WeightsNotFound(
            f"there is no {error} in {weights!r}: set WEIGHTS=path/to/folder to one that holds "
            "BlazePose's pose_detection.tflite and pose_landmark_full.tflite"
        ) from None
    both = "".join(file_hash(path) for path in files)
    digest = hashlib.sha256(both.encode()).hexdigest()
    return Weights(kind="file", hash=f"sha256:{digest}", path=folder.resolve())


def file_hash(path: Path) -> str:
    """`sha256:<hex>` of a regular file's bytes; raises `OSError`."""
    return f"sha256:{sha256(str(path))}"


def _seed(weights: str) -> int:
    text = weights.partition(":")[2] or "0"
    if not text.isascii() or not text.isdigit() or int(text) >= 2**32:
        raise ConfigError(
            f"weights is {weights!r}: write random:SEED with a whole number from 0 to {2**32 - 1}"
        )
    return int(text)


def _check_file(path: Path, weights: str) -> None:
    if path.is_dir():
        raise ConfigError(f"weights is {weights!r}, a folder: give the .h5 file inside it")
    try:
        with path.open("rb") as file:
            start = file.read(len(_HDF5_SIGNATURE))
    except FileNotFoundError:
        raise WeightsNotFound(
            f"there is no weights file {weights!r}: set WEIGHTS=path/to/file.h5 to one that "
            "exists, or WEIGHTS=random to run without trained weights"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"the weights file {weights!r} cannot be read ({error.strerror}): "
            "check its path and permissions"
        ) from None
    if start != _HDF5_SIGNATURE:
        raise ConfigError(
            f"{weights!r} is no Keras weights file (its first bytes are not HDF5's): "
            "give a no-top .h5 or .weights.h5 file"
        )


def _imagenet_file(backbone: str, *, download: bool) -> Path:
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
