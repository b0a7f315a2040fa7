"""The image models of `keras.applications`, as a table that needs no Keras.

`keras_models.csv` was taken from Keras 3.15 by calling every model function and noting its default
input size, its pooled width, and the weights file it asks for; a test compares it with the Keras
that is installed.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

Scaling = Literal["tf", "caffe", "torch", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KerasModel:
    """One row: how to build a model of `keras.applications` and where its ImageNet weights are.

    `scaling` is what its `preprocess_input` does: "tf" to −1..1, "caffe" to BGR minus the mean,
    "torch" by mean and deviation, "none" where the model does it itself. `file` is the address of
    the no-top weights below Keras' site, `checksum` their published MD5 or SHA-256 ("" where Keras
    publishes none), `cached_as` the name in Keras' cache where that is another.
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

    @property
    def cache_name(self) -> str:
        """The file's name in Keras' `models` folder."""
        return self.cached_as or self.file.rsplit("/", 1)[1]


def _read() -> dict[str, KerasModel]:
    text = files(__package__).joinpath("keras_models.csv").read_text(encoding="utf-8")
    rows: list[dict[str, Any]] = list(csv.DictReader(text.splitlines()))
    numbers = ({name: int(row[name]) for name in ("size", "channels")} for row in rows)
    return {
        row["name"]: KerasModel(**{**row, **ints}) for row, ints in zip(rows, numbers, strict=True)
    }


KERAS_MODELS = _read()
