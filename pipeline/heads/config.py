"""Every setting of a training, typed, with its default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.errors import ConfigError
from pipeline.heads.splits import WAYS

SCHEDULES = ("constant", "cosine", "plateau")
PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """How one head is trained. 0 (or `auto`) means: what suits the head and the machine.

    `options` are the head's own (`units`, `dropout`, `preset`, …). `train_batch` counts clips.
    `test_set` names a test set of the store (`pipeline.heads.holdout`) to test on; without it the
    test is cut by `split` too.
    `patience` epochs without a better validation loss end the training. `folds` is read by
    `split=kfold`. `feature_dropout` is the share of channels silenced for a clip, `step_jitter`
    how far (in steps) a step may be replaced by a neighbour; both act in training only.
    """

    head: str = "lstm"
    options: Mapping[str, Any] = field(default_factory=dict)
    epochs: int = 60
    patience: int = 12
    seed: int = 0
    train_batch: int = 0
    lr: float = 0.0
    schedule: str = "constant"
    split: str = "auto"
    test_set: str = ""
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
    folds: int = 3
    class_weights: bool = False
    label_smoothing: float = 0.0
    feature_dropout: float = 0.0
    step_jitter: int = 0
    precision: str = "auto"
    baselines: bool = True

    def __post_init__(self) -> None:
        _one_of("split", self.split, WAYS)
        _one_of("schedule", self.schedule, SCHEDULES)
        _one_of("precision", self.precision, PRECISIONS)
        for name in ("epochs", "patience"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: give 1 or more")
        for name in ("train_batch", "lr", "step_jitter", "seed"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}: give 0 or more")
        for name in ("label_smoothing", "feature_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: give a share from 0 up to 1")

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain JSON values; `test_set` only where one is named.

        (So that a run without one has the identity that it had before there were test sets.)
        """
        values = asdict(self)
        if not self.test_set:
            del values["test_set"]
        return {**values, "options": dict(self.options), "fractions": list(self.fractions)}


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"{name} {value!r} is not known: use {', '.join(known)}")
