"""The first stages of several streams: several backbones on one decoding of each clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from pipeline import engine
from pipeline.errors import SpecMismatch, WeightsNotFound
from pipeline.features import backbones
from pipeline.features.backbones import resolve_weights
from pipeline.features.backbones.family import Backbone, LoadOptions
from pipeline.features.decoders import AHEAD_BYTES, IN_PLACE_BYTES, DecoderPool
from pipeline.features.decoding.process import Limits
from pipeline.features.decoding.values import ClipSource
from pipeline.features.extraction import StreamsExtractor
from pipeline.features.fetching import FetchingDecoders
from pipeline.features.pending import Plans
from pipeline.features.sequences import ClipResult
from pipeline.features.stage import Stage, runnable, stored_stage
from pipeline.spec import Spec


@dataclass(frozen=True, slots=True)
class JoinedStage:
    """Loaded first stages of several specs. A context manager, as `FirstStage`."""

    backbones: tuple[Backbone, ...]
    pool: DecoderPool
    fetching: FetchingDecoders
    extractor: StreamsExtractor

    @classmethod
    def load(cls, stages: Sequence[Stage], *, threads: int = 0) -> Self:
        """Load every backbone, and start the decoders meanwhile. Raises as `FirstStage.load`."""
        specs = [Spec.from_dict(stage.spec) for stage in stages]
        threads = threads or engine.cores()
        plans = Plans.of_specs(specs).distinct
        pool = DecoderPool(
            plans[0],
            processes=stages[0].decoders or threads,
            limits=Limits(base_s=stages[0].timeout_s),
            ahead_bytes=(AHEAD_BYTES + IN_PLACE_BYTES) * len(plans),
            previews=stages[0].previews,
            ahead=True,
            further=plans[1:],
        )
        try:
            loaded = tuple(
                _backbone(spec, stage, threads) for spec, stage in zip(specs, stages, strict=True)
            )
        except BaseException:
            pool.close()
            raise
        fetching = FetchingDecoders(pool)
        extractor = StreamsExtractor(list(zip(specs, loaded, strict=True)), fetching)
        return cls(loaded, pool, fetching, extractor)

    def extract(self, clips: Sequence[ClipSource]) -> list[tuple[ClipResult, ...]]:
        """Of every clip the result of each stream, from one decoding of it.

        Each is what the stream's own first stage makes of the clip, to the bit.
        """
        return [
            tuple(its[number] for number in range(len(its)))
            for its in self.extractor.extract_streams(clips)
        ]

    def close(self) -> None:
        """End the threads and the child processes."""
        self.extractor.close()
        self.fetching.close()
        self.pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def load_stored_streams(
    streams: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]],
    *,
    owner: str,
    weights: str = "",
    **options: Any,
) -> tuple[JoinedStage, list[str]]:
    """The stages that computed features that exist, loaded for one decoding, and notes for the user.

    streams: (spec, what is kept of its first stage). weights: only where a remembered file has moved: it
    goes to the streams that were made with it. options: of `stored_stage`. Raises as `load_stored`.
    """
    stages: list[Stage] = []
    notes: list[str] = []
    placed = not weights
    unfit: SpecMismatch | WeightsNotFound | None = None
    for values, first_stage in streams:
        spec = Spec.from_dict(values)
        stage = None
        if weights and not spec.imported and spec.weights != "none":
            try:
                stage = stored_stage(spec, first_stage, owner=owner, weights=weights, **options)
                placed = True
            except (SpecMismatch, WeightsNotFound) as error:
                unfit = error
        if stage is None:
            stage = stored_stage(spec, first_stage, owner=owner, **options)
        stage, words = runnable(stage)
        stages.append(stage)
        notes += words
    if not placed and unfit is not None:
        raise unfit
    return JoinedStage.load(stages), list(dict.fromkeys(notes))


def _backbone(spec: Spec, stage: Stage, threads: int) -> Backbone:
    options = LoadOptions(engine=stage.engine, batch=stage.cnn_batch, threads=threads)
    return backbones.load(spec, resolve_weights(stage.weights, spec.backbone), options)
