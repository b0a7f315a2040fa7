"""What a head must beat: the commonest class, chance, and frames classified one by one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pipeline.heads.clips import Clips
from pipeline.heads.config import TrainConfig
from pipeline.heads.fitting import Progress
from pipeline.heads.measures import majority_baseline, predicted_classes
from pipeline.heads.splits import Split

FRAME_AVERAGE = "frame_average"


def baselines(
    clips: Clips, split: Split, config: TrainConfig, top1: float, progress: Progress
) -> dict[str, Any]:
    """Test top-1 of `majority`, `chance` and (for features) `frame_average` on the same split.

    The frame average is trained here by the same loop, with its own defaults and the same seed;
    `top1` is the head's own figure, used where the head is the frame average. Ctrl-C here leaves the
    frame average out and is noted in the head's `progress`: the head itself is kept.
    """
    train_at, test_at = clips.positions(split.train), clips.positions(split.test)
    found: dict[str, Any] = {
        "majority": majority_baseline(clips.labels[train_at], clips.labels[test_at]),
        "chance": 1 / len(clips.classes),
    }
    if config.head == FRAME_AVERAGE:
        found[FRAME_AVERAGE] = top1
    elif config.baselines and len(clips.shape) < 3:
        from pipeline.heads.training import fit_split

        plain = replace(
            config, head=FRAME_AVERAGE, options={}, lr=0.0, train_batch=0, precision="float32"
        )
        if progress.stopped:
            return found
        try:
            fitted = fit_split(clips, split, plain)
        except KeyboardInterrupt as interrupt:
            progress.stop(interrupt)
            return found
        if fitted.progress.stopped:
            progress.stopped, progress.stopped_by = True, fitted.progress.stopped_by
            return found
        at, probabilities = fitted.parts["test"]
        found[FRAME_AVERAGE] = float((predicted_classes(probabilities) == clips.labels[at]).mean())
    return found
