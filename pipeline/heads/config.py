"""Every setting of a training, typed, with its default; the command line takes its own from here.

Imports nothing heavy: `--help` rests on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.errors import ConfigError

SPLITS = ("auto", "given", "grouped", "stratified", "kfold", "leave_one_group_out")
SCHEDULES = ("constant", "cosine", "plateau")
PRECISIONS = ("auto", "float32", "bfloat16")
FRACTIONS = (0.7, 0.15, 0.15)
"""Shares of the clips for training, validation and test."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """How one head is trained. 0 (or `auto`): what suits the head and the machine.

    options: the head's own (`units`, `dropout`, `preset`, …)
    patience: epochs without a better validation loss that end the training
    train_batch: clips per training step
    test_set: a test set of the store (`pipeline.heads.holdout`) to test on; without it the test is cut
        by `split` too
    folds: for `split=kfold`
    feature_dropout: share of the channels silenced for a clip, in training only
    step_jitter: how far (in steps) a step may be replaced by a neighbour, in training only
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
    fractions: tuple[float, float, float] = FRACTIONS
    folds: int = 5
    class_weights: bool = False
    label_smoothing: float = 0.0
    feature_dropout: float = 0.0
    step_jitter: int = 0
    precision: str = "auto"
    baselines: bool = True

    def __post_init__(self) -> None:
        for name, known in (
            ("split", SPLITS),
            ("schedule", SCHEDULES),
            ("precision", PRECISIONS),
        ):
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"{name} {getattr(self, name)!r} is not known: use {', '.join(known)}"
                )
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
        """The settings as plain JSON values; `test_set` only if one is named.

        (So that a run without one has the identity that it had before there were test sets.)
        """
        values = asdict(self)
        if not self.test_set:
            del values["test_set"]
        return {**values, "options": dict(self.options), "fractions": list(self.fractions)}


DEFAULTS = TrainConfig()
