"""Test videos as strips of time: the truth above, the prediction below."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.drawing import label_colours, new_figure, save_figure
from pipeline.heads.steps.segments import PREDICTION, TRUTH

MOST = 12
_TICKS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)


def draw_strips(segments: pd.DataFrame, path: Path, classes: Sequence[str]) -> None:
    """Draw the first test videos, each with its truth above its prediction, as one PNG."""
    tested = segments[segments["part"] == "test"]
    videos = list(dict.fromkeys(tested["video_id"]))[:MOST]
    figure = new_figure(11, 1.2 + 0.75 * max(1, len(videos)))
    axes: Any = figure.subplots(max(1, len(videos)), 1, squeeze=False)[:, 0]
    colours = label_colours(classes)
    for axis, video in zip(axes, videos, strict=False):
        mine = tested[tested["video_id"] == video]
        for level, source in ((1, TRUTH), (0, PREDICTION)):
            own = mine[mine["source"] == source]
            spans = [
                (start, end - start)
                for start, end in zip(own["start_s"], own["end_s"], strict=True)
            ]
            faces = [colours.get(label, "0.7") for label in own["label"]]
            axis.broken_barh(spans, (level + 0.06, 0.88), facecolors=faces)
        axis.set_yticks([0.5, 1.5], ["predicted", "true"], fontsize=8)
        axis.set_ylim(0, 2)
        _time_axis(axis, float(mine["end_s"].max()) if len(mine) else 1.0)
        axis.tick_params(axis="x", labelsize=8)
        axis.set_title(video, fontsize=8, loc="left", parse_math=False)
    handles = [axes[0].barh(0, 0, color=face, label=name) for name, face in colours.items()]
    legend = figure.legend(
        handles,
        list(colours),
        loc="outside lower center",
        ncols=min(7, len(colours)),
        fontsize=8,
        frameon=False,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    save_figure(figure, path, dpi=110)


def _time_axis(axis: Any, end_s: float) -> None:
    """From 0 to the video's end, with a dozen ticks at most, in minutes and seconds."""
    step_s = next((step for step in _TICKS_S if step * 12 >= end_s), end_s / 12)
    ticks = np.arange(0, end_s, step_s)
    axis.set_xlim(0, end_s)
    axis.set_xticks(ticks, [f"{int(tick) // 60}:{int(tick) % 60:02d}" for tick in ticks])
