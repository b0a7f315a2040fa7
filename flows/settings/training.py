"""Settings of the trainings: of `train`, of `sweep`, and of those in a `refresh`."""

from __future__ import annotations

from dataclasses import dataclass

from flows.settings.resolve import LARGEST_SEED, MOST_PROCESSES, setting
from pipeline.heads.config import (
    DEFAULTS,
    JOINS,
    PRECISIONS,
    SCHEDULES,
    SKELETONS,
    SPLITS,
    STOPPINGS,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """What a training and a sweep have in common."""

    store: str = setting(
        "features.zarr",
        "the store to train from; several with commas are views of the same clips: training draws "
        "among them, testing reads the first, as predict does; several with + are streams of the same "
        "clips, joined step by step; a quoted pattern ('shards/*.zarr') is several stores of different "
        "clips, as one",
        metavar="PATH",
    )
    units: str = setting(
        "", "widths, separated by commas (default: the head's own)", metavar="N[,N]"
    )
    options: str = setting(
        "", "other options of the head, e.g. dropout=0.3,dense=512", metavar="K=V,…"
    )
    epochs: int = setting(
        DEFAULTS.epochs,
        "at most this many (recurrent heads and tcn with fewer than 1,000 training clips: 40)",
        least=1,
    )
    patience: int = setting(
        DEFAULTS.patience, "epochs without a better validation loss before it stops"
    )
    seed: int = setting(
        DEFAULTS.seed,
        "decides the split, the initial weights and the order of clips",
        most=LARGEST_SEED,
    )
    seeds: int = setting(
        1,
        "train this many times with seed, seed + 1, …, each a run of its own (NAME-seed=N), and "
        "report mean and spread over them",
        least=1,
    )
    runs: str = setting("runs", "folder of all runs", metavar="DIR")
    train_batch: int = setting(
        DEFAULTS.train_batch,
        "clips per optimizer step, the minibatch (0: chosen by the head and the number of clips)",
    )
    lr: float = setting(DEFAULTS.lr, "learning rate (0: the head's own)")
    schedule: str = setting(DEFAULTS.schedule, "schedule of the learning rate", choices=SCHEDULES)
    split: str = setting(
        DEFAULTS.split,
        "which clips are for training, validation and test; auto: given by the data, else whole groups, "
        "else stratified",
        choices=SPLITS,
    )
    test_set: str = setting(
        DEFAULTS.test_set,
        "the test set of the store to test on (see freeze); every test set's clips, with their "
        "groups and equal bytes, stay out of every training",
        metavar="NAME",
    )
    folds: int = setting(DEFAULTS.folds, "number of folds, for --split kfold", least=2)
    repeats: int = setting(
        DEFAULTS.repeats,
        "cut and train all folds this many times, each time from other groups, for --split kfold",
        least=1,
    )
    train_groups: float = setting(
        DEFAULTS.train_groups,
        "share of the groups of the training and validation clips that are used, for a learning curve; "
        "the test clips stay the same",
        most=1,
    )
    shuffle_steps: bool = setting(
        DEFAULTS.shuffle_steps,
        "shuffle the steps of every clip in training and in testing, to measure how much the head relies "
        "on their order",
    )
    class_weights: bool = setting(DEFAULTS.class_weights, "weight classes by inverse frequency")
    label_smoothing: float = setting(
        DEFAULTS.label_smoothing, "share of the label spread over all classes", most=1
    )
    feature_dropout: float = setting(
        DEFAULTS.feature_dropout, "share of feature channels dropped in training", most=1
    )
    step_jitter: int = setting(
        DEFAULTS.step_jitter, "how many steps a step may be swapped for a neighbour in training"
    )
    step_masking: float = setting(
        DEFAULTS.step_masking,
        "longest span of a clip's steps that is masked in training, as a share of them",
        most=1,
    )
    mixup: float = setting(
        DEFAULTS.mixup,
        "mix the clips of a batch, and their labels, by weights of Beta(X, X) in training (0: off)",
        most=10,
    )
    ensemble: int = setting(
        DEFAULTS.ensemble,
        "train this many heads, each with a seed of its own, and average their probabilities: one run",
        least=1,
        most=50,
    )
    warmup: float = setting(
        DEFAULTS.warmup, "share of the epochs in which the learning rate rises to lr", most=1
    )
    weight_decay: float = setting(
        DEFAULTS.weight_decay, "decoupled weight decay of all kernels (AdamW)", most=1
    )
    weight_averaging: float = setting(
        DEFAULTS.weight_averaging,
        "decay of an exponential moving average of the weights, which is what is validated and kept "
        "(0: no average)",
        most=1,
    )
    stopping: str = setting(
        DEFAULTS.stopping,
        "what decides the number of epochs: the best validation loss, all of them (fixed), inner folds "
        "of the training clips, or auto: fixed with fewer than 50 validation clips, else validation",
        choices=STOPPINGS,
    )
    refit: bool = setting(
        DEFAULTS.refit,
        "then train once more, on the training and validation clips together, for the number of epochs "
        "that was found: the figures on validation stay those of the first training",
    )
    precision: str = setting(DEFAULTS.precision, "precision of the training", choices=PRECISIONS)
    skeleton: str = setting(
        DEFAULTS.skeleton,
        "read the landmarks of a pose store as skeletons, which do not depend on the person's place, "
        "size or facing; auto: if the store is one",
        choices=SKELETONS,
    )
    join: str = setting(
        DEFAULTS.join,
        "how streams (a.zarr+b.zarr) are joined, unrelated to the heads late_fusion and early_fusion; "
        "late: a head for each, their probabilities weighted by inner folds; early: one head that reads "
        "all of them",
        choices=JOINS,
    )
    tensorboard: bool = setting(
        False, "also write the epochs for TensorBoard, to RUNS/NAME/tensorboard (extra tensorboard)"
    )
    overwrite: bool = setting(False, "replace a run of this name")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings(TrainingSettings):
    """Trains a head from a store: model, metrics, plots and settings, in RUNS/NAME/."""

    head: str = setting(
        "lstm",
        "which head: `pixels-once heads` lists them; auto: the best of a few by inner folds",
        metavar="NAME",
    )
    preset: str = setting(
        "", "a named set of the head's options, e.g. article_code for lstm", metavar="NAME"
    )
    annotations: str = setting(
        "",
        "what happens when in long videos, for a head that labels every step (segmenter, mstcn): a CSV "
        "with path, start, end and label, or ActivityNet's JSON",
        metavar="FILE",
    )
    multi_label: bool = setting(
        False, "with --annotations: several labels may apply at a time, and each is predicted apart"
    )
    name: str = setting("", "the run's name (default: HEAD-STORE)", metavar="NAME")
    resume: bool = setting(False, "continue an interrupted run of this name")


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSettings(TrainingSettings):
    """Trains many heads from one store in parallel: a run and a Prefect task for each."""

    heads: str = setting(
        "",
        'heads separated by spaces, optionally with options, e.g. "lstm:units=512 '
        'gru:preset=wide mlp"; empty: every head that can read the store',
        metavar="HEADS",
    )
    grid: str = setting(
        "",
        'values to try, e.g. "units=128,512 dropout=0.3,0.5 seed=0,1": settings of the training '
        "or options of the heads; a head without an option is "
        "trained once for all its values",
        metavar="GRID",
    )
    name: str = setting("", "how the runs' names begin (default: the store's)", metavar="PREFIX")
    workers: int = setting(
        0,
        "trainings at a time, each in a process of its own (0: one per GPU, or per two cores)",
        most=MOST_PROCESSES,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSettings(TrainingSettings):
    """Searches heads and settings on inner folds of the training clips; trains the best as a run.

    The run is RUNS/NAME/. Needs the extra search. One seed and one split: no --seeds, --repeats or
    folds of a cross-validation.
    """

    heads: str = setting(
        "gru bilstm tcn pyramid",
        'heads to search, separated by spaces, optionally with options that are kept, e.g. "gru '
        'bilstm:pool=mean+max"',
        metavar="HEADS",
    )
    trials: int = setting(
        60,
        "points to try in all; a search that was interrupted goes on until it has so many",
        least=1,
    )
    name: str = setting("", "the best one's run (default: search-STORE)", metavar="NAME")
    workers: int = setting(
        0,
        "trials at a time, each in a process of its own (0: one per GPU, or per two cores)",
        most=MOST_PROCESSES,
    )
