"""Which frames of a clip become the steps of its sequence: four pure rules.

Every rule gives frame indices that are strictly increasing, within the clip, and at most
`sampling.steps` many. A clip that is not longer than the sequence needs gives what it has.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pipeline.spec import Sampling

ASSUMED_FPS = 25.0
"""Frames per second taken for a clip whose container does not say."""


def sample_indices(sampling: Sampling, n_frames: int, fps: float) -> NDArray[np.int64]:
    """The frames to take from a clip of `n_frames` frames at `fps` frames per second.

    Returns int64 indices, strictly increasing, in `[0, n_frames)`, at most `sampling.steps`
    and at least one where the clip has a frame. `fps` is read by the rule `fps` only.

    >>> sample_indices(Sampling(steps=4), 8, 25.0)
    array([1, 3, 5, 7])
    """
    if n_frames <= 0:
        return np.empty(0, dtype=np.int64)
    if sampling.rule == "uniform":
        return _uniform(sampling, n_frames)
    if sampling.rule == "stride":
        return _regular(sampling, n_frames, float(sampling.stride))
    if sampling.rule == "first":
        return _regular(sampling, n_frames, 1.0)
    clip_fps = fps if math.isfinite(fps) and fps > 0 else ASSUMED_FPS
    return _regular(sampling, n_frames, max(1.0, clip_fps / sampling.fps))


def needs_length(sampling: Sampling) -> bool:
    """Whether the indices change with the clip's length once the clip is long enough.

    Where they do not, reading may stop at the last wanted frame.
    """
    return sampling.rule == "uniform" or sampling.steps == 1


def _uniform(sampling: Sampling, n_frames: int) -> NDArray[np.int64]:
    """One frame from each of `steps` equal segments.

    `index[k] = floor((k + offset) · n_frames / steps)`; with offset 0.5 the segment's middle.
    A clip of at most `steps` frames gives all of them.
    """
    if n_frames <= sampling.steps:
        return np.arange(n_frames, dtype=np.int64)
    places = np.arange(sampling.steps, dtype=np.float64) + sampling.offset
    return np.floor(places * n_frames / sampling.steps).astype(np.int64)


def _regular(sampling: Sampling, n_frames: int, gap: float) -> NDArray[np.int64]:
    """Frames at a fixed distance from the clip's start.

    `index[k] = floor(start + k · gap)` while it is inside the clip, `start = offset · min(gap,
    n_frames)`. The gap is `stride` for the rule `stride`, 1 for `first`, and for `fps`
    `max(1, clip's fps / wanted fps)`: a clip slower than the wanted rate gives every frame.
    """
    start = sampling.offset * min(gap, float(n_frames))
    picks = np.floor(start + np.arange(sampling.steps, dtype=np.float64) * gap)
    return picks[picks < n_frames].astype(np.int64)
