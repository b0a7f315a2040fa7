"""What a training of a head of steps is settled to: its batches, its stopping, what it has no use for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pipeline.errors import ConfigError
from pipeline.heads.config import AUTO, DEFAULTS, TrainConfig
from pipeline.heads.splits import Split
from pipeline.heads.steps.feeding import LEAST_SEQUENCES
from pipeline.heads.steps.splitting import untrained
from pipeline.heads.steps.videos import StepClips
from pipeline.heads.zoo import head_kind, require_labels

OF_CLIPS = (
    *("test_set", "repeats", "train_groups", "shuffle_steps", "step_jitter", "step_masking"),
    *("mixup", "ensemble", "join", "refit"),
)
"""Settings of a training that have a meaning for heads of clips only."""
MOST_VIDEOS = 8


def require_fit(clips: Any, config: TrainConfig) -> None:
    """Raise `ConfigError` for a head or a setting that does not go with clips, or with annotations."""
    steps = isinstance(clips, StepClips)
    if config.head == AUTO:
        if steps:
            raise ConfigError(
                "head is auto, which chooses among heads that label clips: with annotations name "
                "segmenter or mstcn"
            )
        return
    kind = head_kind(config.head)
    require_labels(kind, per_step=steps)
    if not isinstance(clips, StepClips):
        return
    several = bool(kind.configure(config.options).multi_label)
    if several != clips.multi_label:
        raise ConfigError(
            f"multi_label of {kind.name} is {several}, and the annotations were read for "
            f"{'several labels' if clips.multi_label else 'one label'} at a time: give --multi-label, "
            "not the option"
        )
    for name in OF_CLIPS:
        if (value := getattr(config, name)) != getattr(DEFAULTS, name):
            raise ConfigError(
                f"{name} is {value}, which the head {kind.name}, of every step of whole videos, has no "
                "use for: leave it out"
            )
    if config.stopping == "inner":
        raise ConfigError(
            f"stopping is inner, which is for heads that label clips: use validation or fixed with "
            f"{kind.name}"
        )


def settled(config: TrainConfig, splits: Sequence[Split]) -> TrainConfig:
    """The settings with what `auto` and 0 mean for whole videos; the rest is settled as for any head.

    A batch is of a few videos, so that an epoch has several updates. Validation stops: a few videos are
    thousands of steps.
    """
    videos = min(len(split.train) for split in splits)
    batch = min(MOST_VIDEOS, max(1, videos // LEAST_SEQUENCES))
    return replace(
        config,
        train_batch=config.train_batch or batch,
        stopping="validation" if config.stopping == "auto" else config.stopping,
    )


def video_notes(clips: StepClips, splits: Sequence[Split]) -> list[str]:
    """Sentences for the user on these videos and how they are split."""
    notes = []
    if clips.unannotated:
        shown = ", ".join(clips.unannotated[:3]) + ", …" * (len(clips.unannotated) > 3)
        notes.append(
            f"without annotations, and so not used: {len(clips.unannotated)} of the videos ({shown}); a "
            "line with a path alone says that nothing happens in one"
        )
    for split in splits:
        notes += untrained(clips, split)
    return list(dict.fromkeys(notes))
