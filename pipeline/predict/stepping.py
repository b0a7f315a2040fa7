"""A head that labels every step of a long video: all of it is read as one sequence, without windows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pipeline.features.backbones.family import Backbone
from pipeline.heads.saved import Run
from pipeline.heads.steps.inference import predict_steps
from pipeline.predict.sliding import require_finite, walk_through
from pipeline.predict.timeline import Timeline


def make_step_timeline(
    run: Run,
    backbone: Backbone,
    path: str,
    *,
    on_frames: Callable[[int], None] = lambda frames: None,
) -> Timeline:
    """The probabilities of every step of a video, at the pace of the run's training.

    `window_s` of the timeline is the time from step to step. Raises as `sliding.make_timeline`.
    """
    walked = walk_through(run, backbone, path, on_frames=on_frames)
    times = np.array(walked.walk.times)
    probabilities = predict_steps(run.model, walked.features)
    require_finite(run, probabilities, times, "steps")
    return Timeline(
        times=times,
        probabilities=probabilities,
        classes=tuple(run.classes),
        window_s=walked.pace.gap / walked.fps,
        duration_s=walked.walk.duration_s,
        frames=len(times),
        decoded=walked.walk.decoded,
    )
