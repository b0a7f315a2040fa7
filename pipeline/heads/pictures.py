"""A run's pictures: drawn when its figures are safe, and a picture that fails costs only itself."""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import RunWarning
from pipeline.heads.fitting import EpochReport
from pipeline.heads.measures import confusion
from pipeline.heads.run_folder import DONE, read_predictions

PICTURES = ("curves.png", "confusion.png", "model.png")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawn:
    """What the pictures show: `counts` (classes, classes) int64 of true by predicted class."""

    model: Any
    history: Sequence[EpochReport]
    best_epoch: int
    counts: npt.NDArray[np.int64]
    classes: Sequence[str]


def draw_pictures(folder: Path, drawn: Drawn, names: Sequence[str] = PICTURES) -> None:
    """Write these pictures into a run's folder; a `RunWarning` says which could not be drawn."""
    from pipeline.heads.plots import plot_confusion, plot_curves, plot_model

    draw: dict[str, Callable[[Path], None]] = {
        "curves.png": lambda path: plot_curves(drawn.history, path, best_epoch=drawn.best_epoch),
        "confusion.png": lambda path: plot_confusion(drawn.counts, drawn.classes, path),
        "model.png": lambda path: plot_model(drawn.model, path),
    }
    for name in names:
        temporary = folder / f".{name}"
        try:
            draw[name](temporary)
            temporary.replace(folder / name)
        except Exception as error:  # whatever matplotlib raises: the run's figures are worth more
            temporary.unlink(missing_ok=True)
            warnings.warn(
                f"{folder / name} was not drawn ({type(error).__name__}: {error}); "
                "the run's figures are complete",
                RunWarning,
                stacklevel=2,
            )


def draw_missing(folder: Path) -> None:
    """Draw the pictures that a finished run lacks (it was killed while it drew them), from its files."""
    missing = [name for name in PICTURES if not (folder / name).exists()]
    if not missing:
        return
    from pipeline.heads.saved import load_run

    run = load_run(folder)
    predictions = read_predictions(folder / "predictions.csv")
    tested = predictions[predictions["part"] == "test"]
    index = {name: i for i, name in enumerate(run.classes)}
    labels = np.array([index[label] for label in tested["label"]], dtype=np.int64)
    probabilities = tested[[f"p:{name}" for name in run.classes]].to_numpy(dtype=np.float32)
    metrics = json.loads((folder / DONE).read_text(encoding="utf-8"))
    drawn = Drawn(
        model=run.model,
        history=_read_history(folder / "history.csv"),
        best_epoch=int(metrics["best_epoch"]),
        counts=confusion(probabilities, labels),
        classes=run.classes,
    )
    draw_pictures(folder, drawn, missing)


def _read_history(path: Path) -> list[EpochReport]:
    kinds: dict[str, Callable[[str], Any]] = {
        "int": int,
        "float": float,
        "bool": lambda text: text == "True",
    }
    with path.open(newline="", encoding="utf-8") as file:
        return [
            EpochReport(
                **{
                    item.name: kinds[str(item.type)](line[item.name])
                    for item in fields(EpochReport)
                }
            )
            for line in csv.DictReader(file)
        ]
