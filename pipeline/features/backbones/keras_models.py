"""The image models of `keras.applications` and their ImageNet weights, without Keras.

A run that has nothing to do must not pay for Keras, so its models are a table here, and the weights
file that it would cache is looked for, fetched and checked by the same name, address and checksum.

`keras_models.csv` was taken from Keras 3.15 by calling every model function and noting its default
input size, its pooled width, and the weights file it asks for; `keras_parameters.csv` by building each
without its top and weights (`count_params`). A test compares both with the Keras that is installed.
"""

from __future__ import annotations

import csv
import hashlib
import shutil
import urllib.request
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import WeightsNotFound, WeightsUnavailable
from pipeline.features.files import whole
from pipeline.homes import keras_home

Scaling = Literal["tf", "caffe", "torch", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KerasModel:
    """One row: how to build a model of `keras.applications` and where its ImageNet weights are.

    `scaling` is what its `preprocess_input` does: "tf" to −1..1, "caffe" to BGR minus the mean,
    "torch" by mean and deviation, "none" where the model does it itself. `file` is the address of
    the no-top weights below Keras' site, `checksum` their published MD5 or SHA-256 ("" where Keras
    publishes none), `cached_as` the name in Keras' cache where that is another. `parameters`: how many
    numbers it has without its top.
    """

    name: str
    function: str
    module: str
    size: int
    channels: int
    scaling: Scaling
    file: str
    checksum: str
    cached_as: str
    parameters: int


def _rows(name: str) -> list[dict[str, Any]]:
    text = files(__package__).joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def _read() -> dict[str, KerasModel]:
    counts = {row["name"]: int(row["parameters"]) for row in _rows("keras_parameters.csv")}
    rows = _rows("keras_models.csv")
    for row in rows:
        row |= {name: int(row[name]) for name in ("size", "channels")}
    return {row["name"]: KerasModel(**row, parameters=counts[row["name"]]) for row in rows}


KERAS_MODELS = _read()


WEIGHTS_SITE = "https://storage.googleapis.com/"
_CONNECT_S = 15.0


def imagenet_file(backbone: str, *, download: bool) -> Path:
    """The no-top weights file of a model, fetched if it is missing and `download` allows it.

    Raises `WeightsNotFound`, or `WeightsUnavailable` where the site cannot be reached.
    """
    model = KERAS_MODELS[backbone]
    path = keras_home() / "models" / (model.cached_as or model.file.rsplit("/", 1)[1])
    if path.is_file():
        return path
    failure: type[WeightsNotFound] = WeightsNotFound
    why = "downloading was not allowed"
    if download:
        try:
            _fetch(WEIGHTS_SITE + model.file, path, model.checksum)
            return path
        except OSError as error:
            failure, why = WeightsUnavailable, _cause(error)
    raise failure(
        f"the ImageNet weights of {backbone} are not in {path.parent} and could not be downloaded "
        f"({why}): set WEIGHTS=path/to/file.h5 to a no-top weights file, or WEIGHTS=random to run "
        "without trained weights"
    )


def _cause(error: Exception) -> str:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
    return str(getattr(reason, "strerror", None) or reason).strip().rstrip(".")


def _fetch(url: str, path: Path, checksum: str) -> None:
    with whole(path) as making:
        with urllib.request.urlopen(url, timeout=_CONNECT_S) as answer, making.open("wb") as file:
            shutil.copyfileobj(answer, file, 1 << 20)
        _check_download(making, checksum)


def _check_download(path: Path, checksum: str) -> None:
    # Keras publishes MD5 for its older models, SHA-256 for the newer ones, and for two none.
    algorithm = "md5" if len(checksum) == 32 else "sha256"
    with path.open("rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if checksum and found != checksum:
        raise OSError(f"the file that came has another {algorithm} than Keras publishes")
