"""The report's charts, as Plotly figures: pure functions of frames and arrays.

They carry no background and no font colour: the page gives both, by its light or dark scheme.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from pipeline.report.contents import FeatureMap

# Okabe and Ito's colours, told apart by most colour-blind eyes; black and yellow, which vanish on
# one of the two backgrounds, are replaced.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8C6BB1", "#A6761D")
SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up", "star", "x", "hexagon")
MOST_LEGEND = 24
MOST_CLASSES = 40
CATEGORIES: dict[str, Any] = {"automargin": True, "type": "category"}


def class_chart(table: pd.DataFrame) -> go.Figure:
    """Clips per class, split into train, validation and test where the rows know it."""
    named = table.assign(
        label=table["label"].where(table["label"] != "", "(no label)"),
        split=table["split"].where(table["split"] != "", "not split"),
    )
    counts = named.groupby(["label", "split"], observed=True).size().unstack(fill_value=0)
    classes = len(counts)
    counts = counts.loc[counts.sum(axis=1).sort_values(kind="stable").index].tail(MOST_CLASSES)
    unit = "clips"
    if classes > len(counts):
        unit += f", of the {len(counts)} largest of {classes} classes"
    figure = go.Figure()
    for number, split in enumerate(counts.columns):
        figure.add_bar(
            y=list(counts.index),
            x=counts[split].to_numpy(),
            name=str(split),
            orientation="h",
            marker_color=COLOURS[number % len(COLOURS)],
            hovertemplate="%{y}: %{x} clips<extra>" + str(split) + "</extra>",
        )
    return finished(
        figure,
        height=max(220, 90 + 22 * len(counts)),
        barmode="stack",
        xaxis_title=unit,
        yaxis=CATEGORIES,
        showlegend=len(counts.columns) > 1,
    )


def histogram(values: pd.Series, *, unit: str) -> go.Figure:
    """The distribution of one number over the clips."""
    known = values.to_numpy(dtype=float)
    counts, edges = np.histogram(known[np.isfinite(known)], bins=30)
    bars = go.Bar(
        x=(edges[:-1] + edges[1:]) / 2,
        y=counts,
        width=np.diff(edges),
        marker_color=COLOURS[0],
        customdata=np.stack([edges[:-1], edges[1:]], axis=1),
        hovertemplate="%{customdata[0]:.4~g} to %{customdata[1]:.4~g}: %{y} clips<extra></extra>",
    )
    return finished(go.Figure(bars), height=230, xaxis_title=unit, yaxis_title="clips", bargap=0.03)


def map_chart(feature_map: FeatureMap) -> go.Figure:
    """Every clip as a point; a colour and a shape for each label."""
    labels = np.asarray([label or "(no label)" for label in feature_map.labels])
    names = sorted(set(labels.tolist()))
    many = len(labels) > 3000  # more points than an SVG draws smoothly
    Scatter: Any = go.Scattergl if many else go.Scatter
    figure = go.Figure()
    for number, name in enumerate(names):
        at = np.flatnonzero(labels == name)
        points = Scatter(
            x=feature_map.points[at, 0],
            y=feature_map.points[at, 1],
            mode="markers",
            name=_escaped(name),
            marker={
                "color": COLOURS[number % len(COLOURS)],
                "symbol": SYMBOLS[number // len(COLOURS) % len(SYMBOLS)],
                "size": 5 if many else 8,
                "opacity": 0.75,
            },
            customdata=at,
            text=[_escaped(feature_map.video_ids[place]) for place in at.tolist()],
            hovertemplate="%{text}<extra>" + _escaped(name) + "</extra>",
        )
        figure.add_trace(points)
    first, second = feature_map.shares
    return finished(
        figure,
        height=520,
        xaxis={"title": f"first component ({first:.0%})", "zeroline": False},
        yaxis={"title": f"second component ({second:.0%})", "zeroline": False},
        showlegend=1 < len(names) <= MOST_LEGEND,
        hovermode="closest",
    )


def curves_chart(history: pd.DataFrame) -> go.Figure:
    """Accuracy in training and validation, epoch by epoch (of the first fold, if there are several)."""
    if "fold" in history and len(history):
        history = history[history["fold"] == history["fold"].iloc[0]]
    if "member" in history and len(history):
        history = history[history["member"] == history["member"].iloc[0]]
    figure = go.Figure()
    for column, name, colour in (
        ("top1", "training", COLOURS[0]),
        ("val_top1", "validation", COLOURS[1]),
    ):
        if column in history:
            figure.add_scatter(
                x=history["epoch"].to_numpy(),
                y=history[column].to_numpy(),
                name=name,
                mode="lines",
                line={"color": colour},
                hovertemplate="epoch %{x}: %{y:.1%}<extra>" + name + "</extra>",
            )
    yaxis = {"title": "top-1", "tickformat": ".0%", "range": [0, 1.02]}
    return finished(figure, height=300, xaxis_title="epoch", yaxis=yaxis, hovermode="x unified")


def confusion_chart(confusion: pd.DataFrame) -> go.Figure:
    """The predicted class (across) of clips of each class (down), as shares of the class."""
    counts = confusion.to_numpy(dtype=float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [str(name) for name in confusion.index]
    few = len(names) <= 12
    cells = go.Heatmap(
        z=shares,
        x=names,
        y=names,
        text=counts.astype(int).astype(str),
        colorscale="Cividis",
        zmin=0,
        zmax=1,
        showscale=False,
        texttemplate="%{text}" if few else None,
        hovertemplate="%{y} called %{x}: %{text} clips (%{z:.0%})<extra></extra>",
    )
    axis = CATEGORIES | {"showticklabels": len(names) <= MOST_CLASSES}
    return finished(
        go.Figure(cells),
        height=300 if few else 480,
        xaxis=axis | {"title": "predicted"},
        yaxis=axis | {"title": "true", "autorange": "reversed"},
    )


def board_chart(board: pd.DataFrame, what: str) -> go.Figure:
    """Test accuracy of each run, the best above; the highest frame average as a dotted line.

    what: the words below the bars
    """
    lines = board.iloc[::-1]
    spread = lines["spread"].fillna(0).tolist()
    bars = go.Bar(
        x=lines["top1"].to_numpy(),
        y=lines["run"].tolist(),
        orientation="h",
        marker_color=COLOURS[0],
        error_x={"type": "data", "array": spread} if any(spread) else None,
        hovertemplate="%{y}: %{x:.1%}<extra></extra>",
    )
    figure = go.Figure(bars)
    base = board["frame_average"].dropna()
    if len(base):
        figure.add_vline(
            x=float(base.max()),
            line_dash="dot",
            annotation={"text": "frame average", "y": 1, "yanchor": "bottom"},
            line_color="#888",
        )
    xaxis = {"title": what, "tickformat": ".0%", "range": [0, 1]}
    return finished(figure, height=130 + 28 * len(board), xaxis=xaxis, yaxis=CATEGORIES)


def finished(figure: go.Figure, *, height: int, **layout: Any) -> go.Figure:
    """The figure in the page's style: no template, tight margins, no zoom by accident."""
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 56, "r": 12, "t": 24, "b": 48},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        dragmode=False,
        **layout,
    )
    return figure


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
