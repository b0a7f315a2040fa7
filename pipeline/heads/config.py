"""Every setting of a training, typed, with its default; the command line takes its own from here.

Imports nothing heavy: `--help` rests on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.errors import ConfigError

AUTO = "auto"
"""The head that stands for the best of a few."""
SPLITS = ("auto", "given", "grouped", "stratified", "kfold", "leave_one_group_out")
SCHEDULES = ("constant", "cosine", "plateau")
STOPPINGS = ("validation", "fixed", "inner", "auto")
JOINS = ("late", "early")
PRECISIONS = ("auto", "float32", "bfloat16")
FEW = 50
"""With fewer validation clips the epoch of the lowest validation loss is mostly chance."""
FEW_TRAINED = 1000
"""With fewer training clips a head without options is trained by its preset for few (docs/heads.md)."""
LATER = (
    *("test_set", "warmup", "weight_decay", "weight_averaging", "stopping", "join"),
    *("repeats", "train_groups", "shuffle_steps", "step_masking", "mixup", "ensemble", "refit"),
)
"""Settings that runs of older versions did not have."""
SHARES = (
    *("label_smoothing", "feature_dropout", "step_masking"),
    *("warmup", "weight_decay", "weight_averaging"),
)
SKELETONS = ("auto", "yes", "no")
FRACTIONS = (0.7, 0.15, 0.15)
"""Shares of the clips for training, validation and test."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """How one head is trained. 0 (or `auto`): what suits the head and the machine.

    options: the head's own (`units`, `dropout`, `preset`, …)
    patience: epochs without a better validation loss that end the training
    warmup: share of the epochs in which the rate rises to `lr`
    weight_decay: what every step takes off the weights (not biases) per unit of rate, as AdamW
    weight_averaging: share that a running average of the weights keeps at each step (0: none); the
        average is what is validated and kept
    stopping: what decides the number of epochs: `validation` (the best by its loss), `fixed` (all
        `epochs`), `inner` (the best by the mean loss of inner folds of the training clips); `auto` is
        `validation`, or `fixed` with fewer than `FEW` validation clips
    refit: whether a head that is trained by gradients is trained once more, on the training and the
        validation clips together, for the number of epochs that was found; one that is solved for
        always is
    train_batch: clips per training step
    test_set: a test set of the store (`pipeline.heads.holdout`) to test on; without it the test is cut
        by `split` too
    train_groups: share of the groups of the training and validation clips that are used
    shuffle_steps: whether every clip's steps are in random order, in training and in testing
    folds: for `split=kfold`
    repeats: how often all folds are cut and trained, each time from other groups, for `split=kfold`
    feature_dropout: share of the channels silenced for a clip, in training only
    step_jitter: how far (in steps) a step may be replaced by a neighbour, in training only
    step_masking: the longest span of a clip's steps that is silenced, as a share, in training only
    mixup: alpha of the weights by which clips of a batch are mixed, in training only; 0: none
    ensemble: heads that are trained, each with a seed of its own; their probabilities are averaged
    skeleton: whether the landmarks of a `pose` store are read as skeletons; auto: if it is one
    join: of several streams: `late`, a head for each and the weighted mean of their probabilities, or
        `early`, one head that reads all of them at every step
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
    skeleton: str = "auto"
    baselines: bool = True
    warmup: float = 0.0
    weight_decay: float = 0.0
    weight_averaging: float = 0.0
    stopping: str = "validation"
    join: str = JOINS[0]
    repeats: int = 1
    train_groups: float = 1.0
    shuffle_steps: bool = False
    step_masking: float = 0.0
    mixup: float = 0.0
    ensemble: int = 1
    refit: bool = False

    def __post_init__(self) -> None:
        for name, known in (
            ("split", SPLITS),
            ("schedule", SCHEDULES),
            ("precision", PRECISIONS),
            ("stopping", STOPPINGS),
            ("skeleton", SKELETONS),
            ("join", JOINS),
        ):
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"{name} {getattr(self, name)!r} is not known: use {', '.join(known)}"
                )
        for name in ("epochs", "patience", "repeats", "ensemble"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: give 1 or more")
        for name in ("train_batch", "lr", "step_jitter", "mixup", "seed"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}: give 0 or more")
        for name in SHARES:
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: give a share from 0 up to 1")

        if not 0 < self.train_groups <= 1:
            raise ConfigError(
                f"train_groups is {self.train_groups}: give a share above 0, at most 1"
            )

    def to_dict(self, *, whole: bool = False) -> dict[str, Any]:
        """The settings as plain JSON values; those of `LATER` only where they are not the default.

        (So that a run has the identity that it had before there were such settings.) whole: all
        """
        values = asdict(self)
        if not whole and self.skeleton != "yes":
            del values["skeleton"]
        for name in LATER:
            if not whole and values[name] == type(self).__dataclass_fields__[name].default:
                del values[name]
        return {**values, "options": dict(self.options), "fractions": list(self.fractions)}


DEFAULTS = TrainConfig()
