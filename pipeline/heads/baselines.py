"""What a head must beat: the commonest class, chance, and frames classified one by one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pipeline.heads.clips import Clips
from pipeline.heads.config import TrainConfig
from pipeline.heads.fitting import Stop
from pipeline.heads.measures import majority_baseline
from pipeline.heads.splits import Split

FRAME_AVERAGE = "frame_average"


def baselines(
    clips: Clips, split: Split, config: TrainConfig, top1: float, stop: Stop | None = None
) -> dict[str, Any]:
    """Test top-1 of `majority`, `chance` and (for features) `frame_average` on the same split.

    The frame average is trained here by the same loop, with its own defaults and the same seed;
    `top1` is the head's own figure, used where the head is the frame average.
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
        fitted = fit_split(clips, split, plain, stop=stop)
        at, probabilities = fitted.parts["test"]
        found[FRAME_AVERAGE] = float((probabilities.argmax(axis=1) == clips.labels[at]).mean())
    return found
