"""matplotlib figures without a display or global state, and the colours of labels.

Text in them is never parsed as a formula.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any


def new_figure(width: float, height: float, **options: Any) -> Any:
    """A matplotlib figure of this size in inches, drawn without a display."""
    # Not pyplot: it keeps global state, and trainings may run side by side.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", **options)
    FigureCanvasAgg(figure)
    return figure


def label_colours(classes: Sequence[str]) -> dict[str, tuple[float, float, float]]:
    """RGB from 0 to 1 of every label but `background`, the same in every picture of a head.

    Hues go around the circle, lighter and darker by turns.
    """
    labels = [name for name in classes if name != "background"]
    return {
        name: colorsys.hsv_to_rgb((0.58 + i / len(labels)) % 1, 0.55, 0.9 if i % 2 else 0.7)
        for i, name in enumerate(labels)
    }


def save_figure(figure: Any, to: Path | IO[bytes], *, dpi: float) -> None:
    """Draw the figure as PNG. Text comes from data, so a `$` in it starts no formula."""
    from matplotlib.text import Text

    for axes in figure.axes:
        # Tick labels are created only when they are read.
        axes.get_xticklabels()
        axes.get_yticklabels()
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    figure.savefig(to, dpi=dpi, format="png")
