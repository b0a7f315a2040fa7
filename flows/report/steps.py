"""Gathers what a report shows of a run whose head labels every step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.heads.run_folder import read_config
from pipeline.heads.steps.segments import PREDICTION, STEPS, TRUTH, read_segments
from pipeline.plain import read_table
from pipeline.report.contents import RunView, Strip

MOST_STRIPS = 12


def step_view(folder: Path, metrics: dict[str, Any]) -> RunView:
    """A head that labels every step: its test videos as strips of time."""
    segments = read_segments(folder)
    steps = read_table(folder / STEPS, usecols=["video_id", "part", "time_s"])
    lasts = steps[steps["part"] == "test"].groupby("video_id", sort=False)["time_s"].max()
    strips = []
    for video, last in lasts.head(MOST_STRIPS).items():
        own = segments[(segments["video_id"] == video) & (segments["part"] == "test")]
        truth, prediction = (
            [
                (float(start), float(end), str(label))
                for start, end, label in own.loc[
                    own["source"] == source, ["start_s", "end_s", "label"]
                ].itertuples(index=False)
            ]
            for source in (TRUTH, PREDICTION)
        )
        end_s = max([float(last), *(span[1] for span in (*truth, *prediction))])
        strips.append(
            Strip(video_id=str(video), duration_s=end_s, truth=truth, prediction=prediction)
        )
    confusion = folder / "confusion.csv"
    return RunView(
        name=folder.name,
        metrics=metrics,
        history=pd.read_csv(folder / "history.csv"),
        confusion=read_table(confusion, dtype=str, index_col=0).astype(float)
        if confusion.exists()
        else None,
        strips=strips,
        classes=read_config(folder)["classes"],
    )
