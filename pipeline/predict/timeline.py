"""What happens when in a video: probabilities through time, and segments of one label."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.heads.measures import predicted_classes
from pipeline.heads.steps.segments import labelled_runs
from pipeline.plain import write_rows


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Timeline:
    """Probabilities through a video.

    times: (windows,) seconds of the windows' middles
    probabilities: (windows, classes), smoothed, finite
    window_s: the span of one window
    duration_s: of the video
    frames: how many were computed
    decoded: how many the video has
    cuts: seconds at which a shot ends and the next begins; between two of them is at least one
        window's middle
    """

    times: NDArray[np.float64]
    probabilities: NDArray[np.float32]
    classes: tuple[str, ...]
    window_s: float
    duration_s: float
    frames: int
    decoded: int
    cuts: tuple[float, ...] = ()

    def __repr__(self) -> str:
        return (
            f"Timeline({len(self.times)} windows, {len(self.cuts)} cuts, {self.duration_s:.1f} s, "
            f"window {self.window_s:.2f} s, {self.frames} of {self.decoded} frames computed)"
        )

    def at(self, time_s: float) -> NDArray[np.float32]:
        """(classes,) probabilities at a moment, linear between the windows of its shot."""
        shot = bisect.bisect_right(self.cuts, time_s)
        edges = [-np.inf, *self.cuts, np.inf]
        first, last = np.searchsorted(self.times, edges[shot : shot + 2])
        times, probabilities = self.times[first:last], self.probabilities[first:last]
        right = int(np.clip(np.searchsorted(times, time_s), 0, len(times) - 1))
        left = max(right - 1, 0)
        span = times[right] - times[left]
        share = np.clip((time_s - times[left]) / span, 0, 1) if span > 0 else 1.0
        between: NDArray[np.float32] = (
            probabilities[left] * (1 - share) + probabilities[right] * share
        )
        return between


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A span of the video with one label; `probability` is its mean there."""

    start_s: float
    end_s: float
    label: str
    probability: float


def rolling_average(values: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """(n, classes): the mean over up to `width` rows around each; fewer at the ends."""
    before, after = (width - 1) // 2, width // 2
    total = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
    row = np.arange(len(values))
    low, high = np.maximum(row - before, 0), np.minimum(row + after + 1, len(values))
    averaged: NDArray[np.float32] = (total[high] - total[low]) / (high - low)[:, None]
    return averaged.astype(np.float32)


def segments(timeline: Timeline, *, least_s: float = 0.0) -> list[Segment]:
    """The video as consecutive segments of one label, from 0 to its end.

    A segment begins halfway between the windows where the likeliest label changes, or at the cut
    between them. One shorter than `least_s` (0: half a window) is merged into its longer neighbour,
    the shortest first.
    """
    least_s = least_s or timeline.window_s / 2
    classes = predicted_classes(timeline.probabilities)
    changes = np.flatnonzero(np.diff(classes)) + 1
    borders = [0.0, *(_border(timeline, int(i)) for i in changes), timeline.duration_s]
    labels = [int(classes[i]) for i in (0, *changes)]
    while len(labels) > 1:
        spans = np.diff(borders)
        shortest = int(spans.argmin())
        if spans[shortest] >= least_s:
            break
        left = spans[shortest - 1] if shortest else -1.0
        right = spans[shortest + 1] if shortest + 1 < len(labels) else -1.0
        labels[shortest] = labels[shortest - 1 if left >= right else shortest + 1]
        keep = [i for i in range(len(labels)) if not i or labels[i] != labels[i - 1]]
        borders = [*(borders[i] for i in keep), borders[-1]]
        labels = [labels[i] for i in keep]
    return [
        Segment(
            start_s=start,
            end_s=end,
            label=timeline.classes[label],
            probability=float(_within(timeline, start, end)[:, label].mean()),
        )
        for start, end, label in zip(borders, borders[1:], labels, strict=False)
    ]


def labelled(timeline: Timeline, *, multi_label: bool, least_s: float = 0.0) -> list[Segment]:
    """The segments of a head that labels every step, by their starts; `BACKGROUND` is left out.

    multi_label: every label has segments of its own, where its probability is a half or more; they may
    overlap. least_s: shorter ones are left out. A border is halfway between two steps.
    """
    inner = (timeline.times[1:] + timeline.times[:-1]) / 2
    edges = np.concatenate([[0.0], inner, [timeline.duration_s]])
    found = [
        Segment(
            start_s=float(edges[first]),
            end_s=float(edges[last]),
            label=label,
            probability=float(
                timeline.probabilities[first:last, timeline.classes.index(label)].mean()
            ),
        )
        for label, first, last in labelled_runs(
            timeline.probabilities, timeline.classes, multi_label=multi_label
        )
    ]
    long = [each for each in found if each.end_s - each.start_s >= least_s]
    return sorted(long, key=lambda each: (each.start_s, each.end_s, each.label))


def write_timeline(path: Path, timeline: Timeline) -> None:
    """One line per window or step: time_s, and the probability of every label."""
    lines = [
        [f"{time_s:.3f}", *(f"{value:.5f}" for value in probabilities)]
        for time_s, probabilities in zip(timeline.times, timeline.probabilities, strict=True)
    ]
    write_rows(path, [["time_s", *timeline.classes], *lines])


def write_segments(path: Path, parts: Sequence[Segment]) -> None:
    """One line per segment: start_s, end_s, label, probability."""
    lines = [
        [f"{part.start_s:.3f}", f"{part.end_s:.3f}", part.label, f"{part.probability:.4f}"]
        for part in parts
    ]
    write_rows(path, [["start_s", "end_s", "label", "probability"], *lines])


def _border(timeline: Timeline, window: int) -> float:
    """Where a window's label begins: at the cut before it, else halfway from the one before."""
    before, after = timeline.times[window - 1 : window + 1]
    cut = bisect.bisect(timeline.cuts, before)
    if cut < len(timeline.cuts) and timeline.cuts[cut] <= after:
        return timeline.cuts[cut]
    return float(before + after) / 2


def _within(timeline: Timeline, start_s: float, end_s: float) -> NDArray[np.float32]:
    inside = (timeline.times >= start_s) & (timeline.times <= end_s)
    if inside.any():
        return timeline.probabilities[inside]
    return timeline.at((start_s + end_s) / 2)[None]
