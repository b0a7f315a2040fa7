"""A run's pictures, drawn with matplotlib and no display: curves, confusion, layers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.drawing import new_figure, save_figure
from pipeline.heads.fitting import EpochReport

BLUE, ORANGE, GREY = "#2563a8", "#d97706", "#6b7280"


def plot_curves(history: Sequence[EpochReport], path: Path, *, best_epoch: int) -> None:
    """Loss and top-1 of training and validation by epoch, the kept epoch marked."""
    figure = new_figure(9, 3.6)
    epochs = [report.epoch for report in history]
    columns = (("loss", "val_loss", "Loss (cross-entropy)"), ("top1", "val_top1", "Top-1 accuracy"))
    for axis, (ours, theirs, title) in zip(figure.subplots(1, 2), columns, strict=True):
        axis.plot(epochs, [getattr(r, ours) for r in history], color=BLUE, label="training")
        validation = [getattr(r, theirs) for r in history]
        if not np.isnan(validation).all():
            axis.plot(epochs, validation, color=ORANGE, label="validation")
        if best_epoch:
            axis.axvline(best_epoch, color=GREY, linestyle=":", label=f"kept: epoch {best_epoch}")
        axis.set_title(title, fontsize=11)
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.25)
        axis.legend(fontsize=8, frameon=False)
        axis.xaxis.get_major_locator().set_params(integer=True)
    save_figure(figure, path, dpi=130)


def plot_confusion(counts: npt.NDArray[np.int64], classes: Sequence[str], path: Path) -> None:
    """The confusion matrix: shares of each true class as colour, counts where they fit."""
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
    places: dict[str, tuple[float, float]] = {}
    widest = max(sum(level == row for level in levels.values()) for row in range(rows))
    figure = new_figure(3.6 * widest + 0.4, 0.85 * rows + 0.4)
    axis = figure.subplots()
    axis.set_axis_off()
    for row in range(rows):
        names = [name for name, level in levels.items() if level == row]
        for i, name in enumerate(names):
            x = (i - (len(names) - 1) / 2) * 3.6
            places[name] = (x, -row * 0.85)
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
    names: list[str] = []
    for node in layer._inbound_nodes:
        for parent in node.parent_nodes:
            if parent.operation.name not in names:
                names.append(parent.operation.name)
    return names


def _levels(model: Any) -> dict[str, int]:
    """How far below the inputs each layer stands."""
    levels: dict[str, int] = {}
    for layer in model.layers:
        above = [levels[name] for name in _parents(layer) if name in levels]
        levels[layer.name] = 1 + max(above) if above else 0
    return levels
