"""Settings of a training: what `train` and `sweep` share, and what each adds."""

from __future__ import annotations

from dataclasses import dataclass

from flows.settings.field import LARGEST_SEED, MOST_PROCESSES, setting
from pipeline.heads.config import DEFAULTS, PRECISIONS, SCHEDULES, SPLITS


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """What a training and a sweep have in common."""

    store: str = setting(
        "features.zarr",
        "the store to train from; several with commas are views of the same clips: training draws "
        "among them, testing reads the first, as predict does",
        metavar="PATH",
    )
    units: str = setting(
        "", "widths, separated by commas (default: the head's own)", metavar="N[,N]"
    )
    options: str = setting(
        "", "other options of the head, e.g. dropout=0.3,dense=512", metavar="K=V,…"
    )
    epochs: int = setting(
        DEFAULTS.epochs, "at most this many; stops early on validation", metavar="N", least=1
    )
    patience: int = setting(
        DEFAULTS.patience, "epochs without a better validation loss before it stops", metavar="N"
    )
    seed: int = setting(
        DEFAULTS.seed,
        "decides the split, the initial weights and the order",
        metavar="N",
        most=LARGEST_SEED,
    )
    seeds: int = setting(
        1,
        "train this many times with seed, seed + 1, …, each a run of its own (NAME-seed=N), and "
        "report mean and spread over them",
        metavar="N",
        least=1,
    )
    runs: str = setting("runs", "folder of all runs", metavar="DIR")
    train_batch: int = setting(
        DEFAULTS.train_batch, "clips per training step (0: as measured best)", metavar="N"
    )
    lr: float = setting(DEFAULTS.lr, "learning rate (0: the head's own)", metavar="X")
    schedule: str = setting(DEFAULTS.schedule, "of the learning rate", choices=SCHEDULES)
    split: str = setting(
        DEFAULTS.split,
        "who trains and who tests; auto: given by the data, else whole groups, else stratified",
        choices=SPLITS,
    )
    test_set: str = setting(
        DEFAULTS.test_set,
        "the test set of the store to test on (see freeze); every test set's clips, with their "
        "groups and equal bytes, stay out of every training",
        metavar="NAME",
    )
    folds: int = setting(DEFAULTS.folds, "for --split kfold", metavar="N", least=2)
    class_weights: bool = setting(DEFAULTS.class_weights, "weigh classes by how rare they are")
    label_smoothing: float = setting(
        DEFAULTS.label_smoothing, "share of the label spread over all classes", metavar="X", most=1
    )
    feature_dropout: float = setting(
        DEFAULTS.feature_dropout,
        "share of feature channels dropped in training",
        metavar="X",
        most=1,
    )
    step_jitter: int = setting(
        DEFAULTS.step_jitter,
        "how many steps a step may be swapped for a neighbour in training",
        metavar="N",
    )
    precision: str = setting(DEFAULTS.precision, "of the training", choices=PRECISIONS)
    tensorboard: bool = setting(
        False, "also write the epochs for TensorBoard, to RUNS/NAME/tensorboard (extra tensorboard)"
    )
    overwrite: bool = setting(False, "replace a run of this name")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings(TrainingSettings):
    """Store → a trained head with its metrics, plots and settings, in RUNS/NAME/."""

    head: str = setting("lstm", "which head: `pixels-once heads` lists them", metavar="NAME")
    preset: str = setting(
        "", "a named set of the head's options, e.g. article_code for lstm", metavar="NAME"
    )
    name: str = setting("", "the run's name (default: HEAD-STORE)", metavar="NAME")
    resume: bool = setting(False, "go on with an interrupted run of this name")


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSettings(TrainingSettings):
    """Many heads from one store, in parallel: a run and a Prefect task for each."""

    heads: str = setting(
        "",
        'heads separated by spaces, each with options of its own if need be, e.g. "lstm:units=512 '
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
        "trainings at a time, each in a process of its own (0: what suits)",
        metavar="N",
        most=MOST_PROCESSES,
    )
