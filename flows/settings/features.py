"""Settings of the extraction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flows.settings.resolve import MOST_PROCESSES, setting, table_setting
from pipeline.errors import ConfigError
from pipeline.spec import NUMBERS, RULES, Sampling

ENGINES = ("auto", "keras", "openvino", "onnxruntime")


@dataclass(frozen=True, slots=True, kw_only=True)
class FeaturesSettings:
    """Extracts features of clips into a store. Resumes: rows that are up to date are kept."""

    videos: str = setting(
        "",
        "a folder (per class, per split and class, or flat), one file, or a manifest: CSV with the "
        "columns path and label, and start and end for parts of files, or ActivityNet's JSON; empty: the "
        "built-in demo clips",
        metavar="PATH",
    )
    store: str = setting(
        "",
        "where the features go: a folder or an fsspec URL, in which {backbone} stands for the backbone's "
        "name and {shard} for the --shard, 03-of-16 (default: features.zarr, or demo.zarr for the demo "
        "clips)",
        metavar="PATH",
    )
    weights: str = setting(
        "",
        "the backbone's weights: imagenet, a path to a no-top .h5 file, random or random:SEED "
        "(default: those of the store, else imagenet); of several backbones those of each that has "
        "some, a file only where one has",
        metavar="WEIGHTS",
    )
    frames: int = setting(40, "steps in every sequence", least=1, most=100_000)
    sampling: str = setting(
        "uniform",
        f"which frames: {', '.join(f'{rule}=N' if rule in NUMBERS else rule for rule in RULES)}",
        metavar="RULE",
    )
    stride: int = setting(0, "frames from one step to the next, for --sampling stride")
    offset: float = setting(
        0.5, "where in its segment a frame is taken, 0 up to 1 (0.5 is the middle)", most=1
    )
    long: str = setting(
        "auto",
        "what becomes of a file that is longer than its steps, for --sampling fps=N: cut takes its "
        "beginning, split makes several rows of it; auto is the store's own, else cut",
        choices=("auto", "cut", "split"),
    )
    fit: str = setting(
        "auto",
        "how a frame becomes square; auto is crop (motion reads whole frames)",
        choices=("auto", "crop", "squash", "pad"),
    )
    aspect: str = setting(
        "auto",
        "how pixels that are not square are treated: display stretches them to the shape in which they "
        "are shown, stored treats them as square; auto is the store's own, else display",
        choices=("auto", "display", "stored"),
    )
    view: str = setting(
        "plain",
        "plain, or mirror for a second store of mirrored frames",
        choices=("plain", "mirror"),
    )
    backbone: str = setting(
        "",
        "one of those that `pixels-once backbones` lists, e.g. inception_v3 or motion; a model file "
        "(.onnx, .keras); or code as package.module:function; several with commas fill a store each from "
        "one reading of every clip (default: the store's own, else inception_v3)",
        metavar="NAME",
    )
    backbone_config: str = setting(
        "",
        "TOML file of what a model does not say of itself (default: model.toml beside model.onnx); of "
        "several backbones, that of the one model of your own",
        metavar="FILE",
    )
    precision: str = setting(
        "auto",
        "precision of the CNN; auto is the store's own, else the fastest that this host computes (of a "
        "model of your own only where it was measured to agree with float32)",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    dtype: str = setting(
        "auto",
        "type of the stored features; auto is the store's own, else the backbone's (float16)",
        choices=("auto", "float16", "float32"),
    )
    engine: str = setting(
        "auto",
        "what runs the CNN; never changes what a feature means",
        choices=ENGINES,
    )
    batch: int = setting(
        64, "clips per chunk of the store; fixed when a store is created", metavar="CLIPS", least=1
    )
    cnn_batch: int = setting(0, "frames per CNN call (0: chosen by device)", metavar="FRAMES")
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
    cluster_options: dict[str, Any] = table_setting("keyword arguments of --cluster")
    adapt: dict[str, Any] = table_setting("adaptive scaling: minimum and maximum workers")
    gpu: str = setting(
        "auto",
        "auto: where the workers declare a GPU resource the batches ask for it; require: "
        "refuse to run where none is declared",
        choices=("auto", "require", "never"),
    )
    workers: int = setting(
        0, "worker processes of the local cluster (0: one per GPU, or one)", most=MOST_PROCESSES
    )
    worker_wait: float = setting(
        600.0, "seconds to wait for a worker if none is left, before the run ends", metavar="S"
    )
    decoders: int = setting(
        0, "decoding processes per worker (0: as many as cores)", most=MOST_PROCESSES
    )
    timeout: float = setting(
        60.0, "seconds that a clip may take to decode, plus a share for its size", metavar="S"
    )
    shard: str = setting(
        "",
        "a share of the clips that the other settings ask for, by a hash of their ids, for a store of "
        "its own: 3/16 (default: that of the store, else all clips)",
        metavar="K/N",
    )
    classes: str = setting("", "only these classes, separated by commas", metavar="A,B")
    limit: int = setting(0, "at most this many clips (0: all)")
    per_class: int = setting(0, "at most this many clips of each class (0: all)")
    ucf_splits: str = setting(
        "",
        "folder of UCF's trainlistNN/testlistNN/classInd files, and which list: DIR or DIR:2",
        metavar="DIR",
    )
    retry: str = setting(
        "", "try failed clips again: a reason, several with commas, or all", metavar="REASON"
    )
    max_failed: float = setting(
        1.0,
        "end with status 3 if more than this fraction of the clips failed",
        metavar="FRACTION",
        most=1,
    )
    allow_gone: bool = setting(
        False, "continue although more than a fifth of the rows have no clip any longer"
    )
    previews: bool = setting(True, "keep three small pictures of every clip in the store")
    if_busy: str = setting(
        "refuse", "what to do if another run holds the store", choices=("refuse", "skip", "wait")
    )
    lease: bool = setting(True, "hold the store's lease while writing")
    dry_run: bool = setting(False, "report what would be done and how long it may take; do nothing")


def parse_sampling(text: str) -> dict[str, Any]:
    """The `rule` of a `Sampling` and, by its name, the number behind it: `fps=2.5`, `stride=4`.

    Raises `ConfigError` for a rule that is not known, and for a number that it does not take.
    """
    rule, _, number = text.partition("=")
    if rule not in RULES:
        raise ConfigError(f"sampling {rule!r} is not known: use one of {', '.join(RULES)}")
    if not number:
        return {"rule": rule}
    if rule not in NUMBERS:
        raise ConfigError(f"sampling {rule!r} takes no number: write just {rule}")
    try:
        return {"rule": rule, rule: type(getattr(Sampling(), rule))(number)}
    except ValueError:
        raise ConfigError(f"sampling is {text!r}: write fps=2.5 or stride=4") from None
