"""The first stage: decoders, backbone and extractor of one spec, loaded in this process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from pipeline import engine
from pipeline.errors import SpecMismatch, WeightsNotFound
from pipeline.features import backbones
from pipeline.features.backbones import model_family, resolve_weights
from pipeline.features.backbones.family import Backbone, LoadOptions
from pipeline.features.decoders import AHEAD_BYTES, IN_PLACE_BYTES, DecoderPool
from pipeline.features.decoding.process import Limits
from pipeline.features.decoding.values import FramePlan
from pipeline.features.extraction import Extractor
from pipeline.features.fetching import FetchingDecoders
from pipeline.spec import Spec


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """How clips become features: the spec as plain values, and what never changes their meaning.

    weights: the setting that leads to the weights (imagenet, a path, random:SEED, a model file, the hash
    of what code returns) · engine: auto, keras, openvino or onnxruntime · cnn_batch: frames per call ·
    decoders: processes · 0 is what suits. timeout_s: a clip's time to decode, before its size adds to
    it. previews: keep small pictures. precision: why the spec's precision was chosen, where that was
    measured; for the summary.
    """

    spec: dict[str, Any]
    weights: str
    engine: str = "auto"
    cnn_batch: int = 0
    decoders: int = 0
    timeout_s: float = 60.0
    previews: bool = False
    precision: str = ""


def remembered_weights(spec: Spec, first_stage: Mapping[str, Any]) -> str:
    """The setting that leads to the weights of features that exist.

    first_stage: what their store, or a run that was trained on them, keeps about it.
    """
    if spec.weights.startswith("random:"):
        return spec.weights
    return str(first_stage.get("weights") or "imagenet")


def stored_stage(
    spec: Spec, first_stage: Mapping[str, Any], *, owner: str, weights: str = "", **options: Any
) -> Stage:
    """The stage that computed features that exist, ready to be loaded.

    owner: the store or run, for the message. weights: only where the remembered file has moved.
    options: fields of `Stage`. Raises `WeightsNotFound`, or `SpecMismatch` on other weights.
    """
    if spec.imported:
        raise SpecMismatch(
            f"{owner} has imported features (source {spec.source}), and nothing here computes those "
            "from a video: compute them where they came from and import them, or extract the clips "
            "anew with `pixels-once features`"
        )
    setting = weights or remembered_weights(spec, first_stage)
    try:
        given = resolve_weights(setting, spec.backbone)
    except WeightsNotFound as error:
        if spec.backbone not in model_family.FILES:
            raise
        raise WeightsNotFound(
            f"{owner} was made with the model file {setting!r} ({spec.weights[:19]}…), which is not "
            "there: set WEIGHTS to the path that it has now"
        ) from error
    if given.hash != spec.weights:
        raise SpecMismatch(
            f"{owner} was made with weights {spec.weights[:19]}… and {setting!r} has "
            f"{given.hash[:19]}…: set WEIGHTS to the file that it was made with"
        )
    return Stage(spec=spec.to_dict(), weights=setting, **options)


@dataclass(frozen=True, slots=True)
class FirstStage:
    """A loaded first stage. A context manager: leaving it ends the decoders and the CNN's threads."""

    backbone: Backbone
    pool: DecoderPool
    fetching: FetchingDecoders
    extractor: Extractor

    @classmethod
    def load(cls, stage: Stage, *, threads: int = 0) -> Self:
        """Load the backbone, and start the decoders meanwhile.

        threads: cores to use (0: all).
        Raises `WeightsNotFound`, `SpecMismatch` (other weights than the spec's) or `ConfigError`.
        """
        spec = Spec.from_dict(stage.spec)
        threads = threads or engine.cores()
        weights = resolve_weights(stage.weights, spec.backbone)
        options = LoadOptions(engine=stage.engine, batch=stage.cnn_batch, threads=threads)
        pool = DecoderPool(
            FramePlan.of(spec),
            processes=stage.decoders or threads,
            limits=Limits(base_s=stage.timeout_s),
            ahead_bytes=AHEAD_BYTES + IN_PLACE_BYTES,
            previews=stage.previews,
            ahead=True,
        )
        try:
            backbone = backbones.load(spec, weights, options)
        except BaseException:
            pool.close()
            raise
        fetching = FetchingDecoders(pool)
        extractor = Extractor(spec, backbone, fetching)
        return cls(backbone, pool, fetching, extractor)

    @property
    def backbones(self) -> tuple[Backbone, ...]:
        """The one backbone, as a `JoinedStage` has several."""
        return (self.backbone,)

    def close(self) -> None:
        """End the threads and the child processes."""
        self.extractor.close()
        self.fetching.close()
        self.pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def load_stored(
    spec: Mapping[str, Any], first_stage: Mapping[str, Any], **options: Any
) -> tuple[FirstStage, list[str]]:
    """The stage that computed features that exist, loaded, and notes for the user.

    options: of `stored_stage`. Where this machine lacks the features' precision, the CNN runs in float32.
    Raises as `stored_stage` and `FirstStage.load`.
    """
    stage, notes = runnable(stored_stage(Spec.from_dict(spec), first_stage, **options))
    return FirstStage.load(stage), notes


def runnable(stage: Stage) -> tuple[Stage, list[str]]:
    """The stage in a precision that this machine has, and what to tell the user of it."""
    precision = stage.spec["precision"]
    if precision in engine.precisions():
        return stage, []
    note = f"this machine has no {precision}: the CNN runs in float32 instead"
    return replace(stage, spec={**stage.spec, "precision": "float32"}), [note]
