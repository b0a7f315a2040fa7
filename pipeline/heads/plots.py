"""A run's plots, drawn from its files with matplotlib and no display: curves, confusion, layers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.drawing import new_figure, save_figure
from pipeline.errors import RunWarning
from pipeline.heads.run_folder import read_metrics
from pipeline.heads.saved import load_run
from pipeline.plain import read_table

PLOTS = ("curves.png", "confusion.png", "model.png")
BLUE, ORANGE, GREY = "#2563a8", "#d97706", "#6b7280"


def draw_plots(folder: Path, model: Any, names: Sequence[str] = PLOTS) -> None:
    """Draw these plots of a run whose figures are written; a `RunWarning` names each that failed."""
    draw: dict[str, Callable[[Path], None]] = {
        "curves.png": lambda path: plot_curves(
            pd.read_csv(folder / "history.csv"), path, best_epoch=read_metrics(folder)["best_epoch"]
        ),
        "confusion.png": lambda path: plot_confusion(
            read_table(folder / "confusion.csv", index_col=0), path
        ),
        "model.png": lambda path: plot_model(model, path),
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
    """Draw the plots that a finished run lacks (it was killed while it drew them)."""
    missing = [name for name in PLOTS if not (folder / name).exists()]
    if missing:
        draw_plots(folder, load_run(folder).model, missing)


def plot_curves(history: pd.DataFrame, path: Path, *, best_epoch: int) -> None:
    """Loss and top-1 of training and validation by epoch, the kept epoch marked.

    history: one line per epoch, as in `history.csv`; of an ensemble the mean of its members is drawn
    """
    history = history.groupby("epoch", as_index=False).mean(numeric_only=True)
    figure = new_figure(9, 3.6)
    columns = (("loss", "val_loss", "Loss (cross-entropy)"), ("top1", "val_top1", "Top-1 accuracy"))
    for axis, (training, validation, title) in zip(figure.subplots(1, 2), columns, strict=True):
        axis.plot(history["epoch"], history[training], color=BLUE, label="training")
        if not history[validation].isna().all():
            axis.plot(history["epoch"], history[validation], color=ORANGE, label="validation")
        if best_epoch:
            axis.axvline(best_epoch, color=GREY, linestyle=":", label=f"kept: epoch {best_epoch}")
        axis.set_title(title, fontsize=11)
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.25)
        axis.legend(fontsize=8, frameon=False)
        axis.xaxis.get_major_locator().set_params(integer=True)
    save_figure(figure, path, dpi=130)


def plot_confusion(table: pd.DataFrame, path: Path) -> None:
    """The confusion matrix: shares of each true class as colour, counts where they fit.

    table: (classes, classes) counts, true by predicted class, as in `confusion.csv`
    """
    classes, counts = [str(name) for name in table.columns], table.to_numpy(dtype=np.int64)
    n = len(classes)
    side = float(np.clip(2.5 + 0.45 * n, 4, 22))
    figure = new_figure(side + 1, side)
    axis = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axis, shrink=0.8, label="share of the true class")
    size = float(np.clip(14 - 0.12 * n, 4, 10))
    axis.set_xticks(range(n), classes, rotation=90 if n > 4 else 0, fontsize=size)
    axis.set_yticks(range(n), classes, fontsize=size)
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    if n <= 40:
        for i, j in zip(*np.nonzero(counts), strict=True):
            colour = "white" if shares[i, j] > 0.6 else "black"
            axis.text(
                j, i, str(counts[i, j]), ha="center", va="center", color=colour, fontsize=size
            )
    save_figure(figure, path, dpi=110)


def plot_model(model: Any, path: Path) -> None:
    """The layers of a Keras model from top to bottom: name, kind, output shape, parameters."""
    levels = _levels(model)
    rows = max(levels.values()) + 1
    by_row = [[name for name, level in levels.items() if level == row] for row in range(rows)]
    widest = max(map(len, by_row))
    places = {
        name: ((i - (len(names) - 1) / 2) * 3.6, -row * 0.85)
        for row, names in enumerate(by_row)
        for i, name in enumerate(names)
    }
    figure = new_figure(3.6 * widest + 0.4, 0.85 * rows + 0.4)
    axis = figure.subplots()
    axis.set_axis_off()
    for layer in model.layers:
        for parent in _parents(layer):
            if parent in places:
                axis.annotate(
                    "",
                    xy=(places[layer.name][0], places[layer.name][1] + 0.27),
                    xytext=(places[parent][0], places[parent][1] - 0.27),
                    arrowprops={"arrowstyle": "-|>", "color": GREY, "lw": 0.9},
                    zorder=1,
                )
        x, y = places[layer.name]
        axis.text(
            x,
            y,
            _describe(layer),
            ha="center",
            va="center",
            fontsize=8.5,
            zorder=2,
            bbox={"boxstyle": "round,pad=0.45", "facecolor": "#eef4fb", "edgecolor": BLUE},
        )
    axis.set_xlim(-1.8 * widest, 1.8 * widest)
    axis.set_ylim(-0.85 * rows + 0.3, 0.5)
    title = f"{model.name} · {model.count_params():,} parameters"
    axis.set_title(title, fontsize=11)
    save_figure(figure, path, dpi=130)


def _describe(layer: Any) -> str:
    shape = tuple(layer.output.shape[1:])
    text = f"{type(layer).__name__} ({layer.name})\n→ {shape}"
    return f"{text} · {layer.count_params():,}" if layer.count_params() else text


def _parents(layer: Any) -> list[str]:
    parents = (parent for node in layer._inbound_nodes for parent in node.parent_nodes)
    return list(dict.fromkeys(parent.operation.name for parent in parents))


def _levels(model: Any) -> dict[str, int]:
    """How far below the inputs each layer stands."""
    levels: dict[str, int] = {}
    for layer in model.layers:
        above = [levels[name] for name in _parents(layer) if name in levels]
        levels[layer.name] = 1 + max(above) if above else 0
    return levels
