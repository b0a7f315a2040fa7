"""Test videos as strips of time: the truth above, the prediction below."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.drawing import new_figure, save_figure
from pipeline.heads.steps.segments import PREDICTION, TRUTH

MOST = 12


def draw_strips(segments: pd.DataFrame, path: Path, classes: Sequence[str]) -> None:
    """Draw the first test videos, each with its truth above its prediction, as one PNG."""
    tested = segments[segments["part"] == "test"]
    videos = list(dict.fromkeys(tested["video_id"]))[:MOST]
    figure = new_figure(11, 1.2 + 0.75 * max(1, len(videos)))
    axes: Any = figure.subplots(max(1, len(videos)), 1, squeeze=False)[:, 0]
    colours = {name: colour(i, len(classes)) for i, name in enumerate(classes)}
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
        axis.set_xlim(0, float(mine["end_s"].max()) if len(mine) else 1)
        axis.tick_params(axis="x", labelsize=8)
        axis.set_title(video, fontsize=8, loc="left", parse_math=False)
    axes[-1].set_xlabel("seconds", fontsize=8)
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


def colour(number: int, of: int) -> tuple[float, float, float]:
    """RGB from 0 to 1 of a label: hues around the circle, light and dark by turns."""
    import colorsys

    return colorsys.hsv_to_rgb((0.58 + number / max(of, 1)) % 1, 0.55, 0.9 if number % 2 else 0.7)
