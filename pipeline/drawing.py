"""matplotlib figures without a display or global state, in which text is never parsed as a formula."""

from __future__ import annotations

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
