"""Every setting of every command: one typed tree, its defaults here.

A TOML file (`--config`), the environment (`PIXELS_ONCE_FEATURES_VIDEOS=…`) and flags
(`--videos …`) override the defaults, in that order. The tree that came out is saved with what it
made. This module imports nothing heavy: the command line's `--help` rests on it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def setting(default: Any, help: str, *, choices: tuple[str, ...] = (), metavar: str = "") -> Any:
    """A dataclass field with the words that `--help` prints for it."""
    return field(default=default, metadata={"help": help, "choices": choices, "metavar": metavar})


@dataclass(frozen=True, slots=True, kw_only=True)
class FeaturesSettings:
    """Clips → store. Resumes: what the store already holds is not made again."""

    videos: str = setting(
        "",
        "a folder (per class, per split and class, or flat), one file, or a CSV manifest with the "
        "columns path and label; empty: the built-in demo clips",
        metavar="PATH",
    )
    store: str = setting(
        "",
        "where the features go: a folder or an fsspec URL (default: features.zarr, or "
        "demo.zarr for the demo clips)",
        metavar="PATH",
    )
    weights: str = setting(
        "",
        "the backbone's weights: imagenet, a path to a no-top .h5 file, random or random:SEED "
        "(default: what the store was made with, else imagenet)",
        metavar="WEIGHTS",
    )
    frames: int = setting(40, "steps in every sequence", metavar="N")
    sampling: str = setting(
        "uniform", "which frames: uniform, stride, first, or fps=N", metavar="RULE"
    )
    stride: int = setting(0, "frames from one step to the next, for --sampling stride", metavar="N")
    offset: float = setting(
        0.5, "where in its segment a frame is taken, 0 up to 1 (0.5 is the middle)", metavar="X"
    )
    fit: str = setting("crop", "how a frame becomes square", choices=("crop", "squash", "pad"))
    view: str = setting(
        "plain", "plain, or mirror for a mirrored second store", choices=("plain", "mirror")
    )
    backbone: str = setting(
        "inception_v3",
        "the first stage: inception_v3, another keras.applications model, frames or pose",
        metavar="NAME",
    )
    precision: str = setting(
        "auto",
        "of the CNN; auto is the store's own, else what this machine is good at",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    dtype: str = setting("float16", "of the stored features", choices=("float16", "float32"))
    engine: str = setting(
        "auto",
        "what runs the CNN; never changes what a feature means",
        choices=("auto", "keras", "openvino"),
    )
    batch: int = setting(
        64, "clips per chunk of the store; fixed when a store is made", metavar="CLIPS"
    )
    cnn_batch: int = setting(0, "frames per CNN call (0: as measured best)", metavar="FRAMES")
    scheduler: str = setting(
        "",
        "address of a running Dask scheduler, tcp://…; empty: a local cluster",
        metavar="ADDRESS",
    )
    cluster: str = setting(
        "",
        "class path of a Dask cluster to start, e.g. dask_jobqueue.SLURMCluster; its keyword "
        "arguments are [features.cluster_options] in the config file",
        metavar="CLASS",
    )
    cluster_options: dict[str, Any] = field(
        default_factory=dict, metadata={"help": "keyword arguments of --cluster", "file_only": True}
    )
    adapt: dict[str, Any] = field(
        default_factory=dict,
        metadata={"help": "adaptive scaling: minimum and maximum workers", "file_only": True},
    )
    gpu: str = setting(
        "auto",
        "auto: where the workers declare a GPU resource the batches ask for it; require: "
        "refuse to run where none is declared",
        choices=("auto", "require", "never"),
    )
    workers: int = setting(
        0, "worker processes of the local cluster (0: one per GPU, or one)", metavar="N"
    )
    decoders: int = setting(0, "decoding processes per worker (0: as many as cores)", metavar="N")
    timeout: float = setting(
        60.0, "seconds that a clip may take to decode, plus a share for its size", metavar="S"
    )
    classes: str = setting("", "only these classes, separated by commas", metavar="A,B")
    limit: int = setting(0, "at most this many clips (0: all)", metavar="N")
    per_class: int = setting(0, "at most this many clips of each class (0: all)", metavar="N")
    ucf_splits: str = setting(
        "",
        "folder of UCF's trainlistNN/testlistNN/classInd files, and which list: DIR or DIR:2",
        metavar="DIR",
    )
    retry: str = setting(
        "", "try failed clips again: a reason, several with commas, or all", metavar="REASON"
    )
    max_failed: float = setting(
        1.0, "end with status 3 if more than this share of the clips failed", metavar="FRACTION"
    )
    allow_gone: bool = setting(
        False, "go on although more than a fifth of the rows would be marked gone"
    )
    if_busy: str = setting(
        "refuse", "when another run holds the store", choices=("refuse", "skip", "wait")
    )
    lease: bool = setting(True, "hold the store's lease while writing")
    dry_run: bool = setting(False, "say what would be done and how long it may take; do nothing")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """Store → a trained head with its metrics, plots and settings, in RUNS/NAME/."""

    store: str = setting(
        "features.zarr",
        "the store to train from; several with commas are views of the same clips",
        metavar="PATH",
    )
    head: str = setting("lstm", "which head: `pixels-once heads` lists them", metavar="NAME")
    units: str = setting(
        "", "widths, separated by commas (default: the head's own)", metavar="N[,N]"
    )
    options: str = setting(
        "", "other options of the head, e.g. dropout=0.3,dense=512", metavar="K=V,…"
    )
    epochs: int = setting(60, "at most this many; stops early on validation", metavar="N")
    patience: int = setting(
        12, "epochs without a better validation loss before it stops", metavar="N"
    )
    seed: int = setting(0, "decides the split, the initial weights and the order", metavar="N")
    name: str = setting("", "the run's name (default: HEAD-STORE)", metavar="NAME")
    runs: str = setting("runs", "folder of all runs", metavar="DIR")
    train_batch: int = setting(0, "clips per training step (0: as measured best)", metavar="N")
    lr: float = setting(0.0, "learning rate (0: the head's own)", metavar="X")
    split: str = setting(
        "auto",
        "who trains and who tests; auto: given by the data, else whole groups, else stratified",
        choices=("auto", "given", "grouped", "stratified", "kfold", "leave_one_group_out"),
    )
    folds: int = setting(5, "for --split kfold", metavar="N")
    class_weights: bool = setting(False, "weigh classes by how rare they are")
    label_smoothing: float = setting(0.0, "share of the label spread over all classes", metavar="X")
    feature_dropout: float = setting(
        0.0, "share of feature channels dropped in training", metavar="X"
    )
    step_jitter: float = setting(0.0, "share of steps dropped at random in training", metavar="X")
    schedule: str = setting("constant", "of the learning rate", choices=("constant", "cosine"))
    precision: str = setting("auto", "of the training", choices=("auto", "float32", "bfloat16"))
    resume: bool = setting(False, "go on with an interrupted run of this name")
    overwrite: bool = setting(False, "replace a run of this name")


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictSettings:
    """A run and a clip (or a folder, a manifest) → the most likely labels."""

    run: str = setting("", "folder of a trained run, e.g. runs/gru-fight", metavar="DIR")
    video: str = setting("", "a clip, a folder or a CSV manifest", metavar="PATH")
    weights: str = setting(
        "", "only where the weights that the run remembers have moved or changed", metavar="PATH"
    )
    top: int = setting(5, "how many labels to print", metavar="K")
    engine: str = setting("auto", "what runs the CNN", choices=("auto", "keras", "openvino"))
    csv: str = setting("", "also write the predictions to this CSV file", metavar="FILE")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShowSettings:
    """What is in a store: spec, rows by status, labels, reasons, size."""

    store: str = setting("features.zarr", "the store", metavar="PATH")


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifySettings:
    """Reads every row back and says which are sound; --repair sends damaged rows to pending."""

    store: str = setting("features.zarr", "the store", metavar="PATH")
    repair: bool = setting(False, "set damaged rows to pending; the next run makes them anew")
    sample: int = setting(
        0, "also extract this many random ready clips again and compare", metavar="N"
    )
    videos: str = setting(
        "", "where the clips are, for --sample (default: where they were)", metavar="PATH"
    )
    weights: str = setting("", "the backbone's weights, for --sample", metavar="WEIGHTS")
    seed: int = setting(0, "which clips --sample picks", metavar="N")


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSettings:
    """Features, a head and a prediction on the built-in clips, in one go."""

    store: str = setting("demo.zarr", "the demo's store", metavar="PATH")
    weights: str = setting(
        "", "as for features; random is allowed to step in here", metavar="WEIGHTS"
    )
    runs: str = setting("runs", "folder of all runs", metavar="DIR")
    units: int = setting(64, "width of the demo's LSTM", metavar="N")
    seed: int = setting(0, "of the split and the training", metavar="N")


COMMANDS: dict[str, type[Any]] = {
    "features": FeaturesSettings,
    "train": TrainSettings,
    "predict": PredictSettings,
    "show": ShowSettings,
    "verify": VerifySettings,
    "demo": DemoSettings,
}
