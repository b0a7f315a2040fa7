"""The pictures on a run's page: where the time went, and how fast it went. PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from flows.extract.summary import stage_rows
from pipeline.drawing import new_figure, save_figure

_COLOURS = {
    "cnn": "#3b6fb6",
    "decode": "#e08b3e",
    "waiting": "#b8bcc4",
    "write": "#4f9d69",
    "commit": "#9467a8",
}
_SMOOTHED_OVER = 3


def stage_shares(seconds: dict[str, float]) -> bytes:
    """One bar per stage with its seconds and its share, largest on top."""
    rows = stage_rows(seconds)[::-1]
    figure, axes = _canvas(0.42 * len(rows) + 0.9)
    bars = axes.barh(
        [name for name, _, _ in rows],
        [value for _, value, _ in rows],
        color=[_COLOURS.get(name, "#777777") for name, _, _ in rows],
    )
    axes.bar_label(bars, [f" {value:.1f} s · {share:.0%}" for _, value, share in rows], fontsize=9)
    axes.set_xlim(0, max((value for _, value, _ in rows), default=1) * 1.25 or 1)
    axes.set_xlabel("seconds of the workers")
    return _png(figure)


def throughput(curve: Sequence[tuple[float, int]]) -> bytes:
    """Frames per second over the run, from (seconds since the start, frames so far)."""
    points = list(curve)
    middles, rates = [], []
    for i in range(1, len(points)):
        first = points[max(0, i - _SMOOTHED_OVER)]
        elapsed = points[i][0] - first[0]
        if elapsed > 0:
            middles.append(points[i][0])
            rates.append((points[i][1] - first[1]) / elapsed)
    figure, axes = _canvas(2.4)
    axes.fill_between(middles, rates, color=_COLOURS["cnn"], alpha=0.2, linewidth=0)
    axes.plot(middles, rates, color=_COLOURS["cnn"])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("seconds since the workers were asked for")
    axes.set_ylabel("frames/s")
    return _png(figure)


def _canvas(height: float) -> tuple[Any, Any]:
    figure = new_figure(6.4, height, dpi=100)
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _png(figure: Any) -> bytes:
    out = io.BytesIO()
    save_figure(figure, out, dpi=100)
    return out.getvalue()
