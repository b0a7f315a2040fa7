"""A head slides over a long video: every frame goes through the CNN once, windows share the results.

Frames are taken at the pace of the run's training clips. Their features are computed in one pass;
a window is a slice of them, so windows may overlap as much as they like at no cost for the CNN.
Where the video cuts, windows end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError, UnreadableClip
from pipeline.features.backbones.family import Backbone
from pipeline.features.decoding.values import FramePlan
from pipeline.features.decoding.video import Video
from pipeline.features.sampling import rule_of
from pipeline.heads.measures import predicted_classes
from pipeline.heads.saved import Run
from pipeline.predict.shots import shots
from pipeline.predict.timeline import Timeline, rolling_average
from pipeline.predict.walking import Batch, Pace, Walk
from pipeline.spec import Spec

_WINDOWS_AT_ONCE = 64


def make_timeline(
    run: Run,
    backbone: Backbone,
    path: str,
    *,
    window_s: float = 0.0,
    hop: int = 0,
    smooth: int = 5,
    cuts: bool = True,
    on_frames: Callable[[int], None] = lambda frames: None,
) -> Timeline:
    """Slide the head over a video.

    window_s: seconds in a window (0: what the run's training clips lasted, or what the sampling
    rule says). hop: steps from window to window (0: an eighth of a window). smooth: how many
    windows the rolling average takes, itself in the middle; 1 is none. cuts: no window and no
    average reaches across a cut; a scene shorter than half a window stays with its neighbour.
    on_frames: called with the number of frames computed so far.

    Raises `UnreadableClip` for a video without frames, `ConfigError` for a window that is not
    positive and for a head whose probabilities are not numbers.
    """
    if smooth < 1 or hop < 0:
        raise ConfigError(f"smooth is {smooth} and hop {hop}: give 1 or more windows and steps")
    walked = walk_through(run, backbone, path, window_s=window_s, on_frames=on_frames)
    features, walk, pace, fps = walked.features, walked.walk, walked.pace, walked.fps
    spans = shots(features, max(1, pace.steps // 2)) if cuts else [(0, len(features))]
    begins, ends = np.array(walk.times), np.append(walk.times[1:], walk.duration_s)
    reach = _reach(begins, pace, fps)
    hop = hop or max(1, pace.steps // 8)
    starts, widths = zip(*(_windows(span, reach, hop) for span in spans), strict=True)
    start, width = np.concatenate(starts), np.concatenate(widths)
    probabilities = _window_probabilities(run, features, start, width)
    middles = (begins[start] + ends[start + width - 1]) / 2
    require_finite(run, probabilities, middles)
    borders = np.cumsum([len(of_shot) for of_shot in starts])[:-1]
    return Timeline(
        times=middles,
        probabilities=np.concatenate(
            [rolling_average(part, smooth) for part in np.split(probabilities, borders)]
        ),
        classes=tuple(run.classes),
        window_s=min(pace.steps, len(features)) * pace.gap / fps,
        duration_s=walk.duration_s,
        frames=len(features),
        decoded=walk.decoded,
        cuts=tuple(float(begins[first]) for first, _ in spans[1:]),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Walked:
    """A video that was walked through: features (steps, *shape) of its spec's dtype, and how."""

    features: NDArray[Any]
    walk: Walk
    pace: Pace
    fps: float


def walk_through(
    run: Run,
    backbone: Backbone,
    path: str,
    *,
    window_s: float = 0.0,
    on_frames: Callable[[int], None] = lambda frames: None,
) -> Walked:
    """The features of a video at the pace of a run's training; as `make_timeline`."""
    spec = Spec.from_dict(run.spec)
    window_s = window_s or float(run.first_stage.get("clip_seconds", 0.0))
    if rule_of(spec.sampling).gap is None and window_s <= 0:
        raise ConfigError(
            f"the run {run.folder.name} does not say how long its clips were: give --window SECONDS"
        )
    with Video(path) as video:
        fps = 1 / video.frame_s
        pace = Pace.of(spec.sampling, fps, window_s)
        walk = Walk(video, FramePlan.of(spec), pace)
        features = _computed(backbone, walk.batches(backbone.batch), spec, on_frames)
    if not len(features):
        raise UnreadableClip("no_frames", f"{path} gave no frame")
    return Walked(features=features, walk=walk, pace=pace, fps=fps)


def require_finite(
    run: Run,
    probabilities: NDArray[np.float32],
    middles: NDArray[np.float64],
    what: str = "windows",
) -> None:
    """Raise `ConfigError` where a head's probabilities, (n, classes) at `middles`, are not numbers."""
    wrong = predicted_classes(probabilities) < 0
    if wrong.any():
        raise ConfigError(
            f"the head {run.folder.name} returns NaN for {int(wrong.sum())} of {len(wrong)} "
            f"{what} (the first at {middles[wrong][0]:.1f} s): train it again, or use another"
        )


def _reach(times: NDArray[np.float64], pace: Pace, fps: float) -> NDArray[np.int64]:
    """(steps,): the step after the last of a window that begins at each step."""
    reach = np.arange(len(times)) + pace.steps
    if pace.counted:
        return reach
    ends = times + (pace.steps - 0.5) * pace.gap / fps
    return np.minimum(reach, np.searchsorted(times, ends))


def _windows(
    span: tuple[int, int], reach: NDArray[np.int64], hop: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First steps and widths of the windows over a shot; the last ends where the shot does."""
    first, last = span
    ending = first + int(np.searchsorted(reach[first : last - 1], last))
    starts = np.arange(first, ending + 1, hop)
    if starts[-1] != ending:
        starts = np.append(starts, ending)
    return starts, np.minimum(reach[starts], last) - starts


def _computed(
    backbone: Backbone,
    batches: Iterator[Batch],
    spec: Spec,
    on_frames: Callable[[int], None],
) -> NDArray[Any]:
    """(frames, *shape) of the spec's dtype: every frame once, decoded while others are computed."""
    parts: list[NDArray[Any]] = []
    # A backbone that follows a person must see the batches in order.
    callers = 1 if backbone.whole_clips else backbone.concurrency
    running: list[Future[NDArray[Any]]] = []

    def collect() -> None:
        parts.append(running.pop(0).result().astype(spec.dtype))
        on_frames(sum(map(len, parts)))

    with ThreadPoolExecutor(callers) as threads:
        for batch in batches:
            running.append(threads.submit(backbone, *batch))
            if len(running) > callers:
                collect()
        while running:
            collect()
    return np.concatenate(parts) if parts else np.zeros((0, *spec.shape), spec.dtype)


def _window_probabilities(
    run: Run, features: NDArray[Any], starts: NDArray[np.int64], widths: NDArray[np.int64]
) -> NDArray[np.float32]:
    """(windows, classes) probabilities of each window, padded to the head's steps."""
    probabilities = []
    for at in range(0, len(starts), _WINDOWS_AT_ONCE):
        some = slice(at, at + _WINDOWS_AT_ONCE)
        windows = np.zeros((len(starts[some]), run.steps, *run.shape), features.dtype)
        mask = np.zeros((len(starts[some]), run.steps), bool)
        for i, (start, width) in enumerate(zip(starts[some], widths[some], strict=True)):
            windows[i, :width] = features[start : start + width]
            mask[i, :width] = True
        probabilities.append(run.predict(windows, mask))
    return np.concatenate(probabilities)
