"""The annotated videos of a store, for heads that label every step."""

from __future__ import annotations

import store
from flows.notices import notice
from flows.settings.training import TrainSettings
from flows.train.opening import require_one_store
from flows.train.shared import Loaded, clip_seconds
from pipeline.errors import ConfigError
from pipeline.heads.config import TrainConfig
from pipeline.heads.spans import whole_files
from pipeline.heads.steps.annotations import SHOWN, Annotations, annotations_of, require_single
from pipeline.heads.steps.planning import video_notes
from pipeline.heads.steps.splitting import split_videos
from pipeline.heads.steps.videos import StepClips, load_videos


def read_annotations(path: str, source: store.Store, *, multi_label: bool = False) -> Annotations:
    """The annotations in a CSV (`path` or `id`, `start`, `end`, `label`) or in ActivityNet's JSON.

    Raises `ConfigError` with the line for what cannot be, and, unless `multi_label`, for two of a file
    that overlap.
    """
    # Late: a training without annotations loads nothing of the first stage.
    from pipeline.features.catalog.activitynet import read_activitynet
    from pipeline.features.catalog.manifest_text import read_csv

    table = read_activitynet(path) if path.lower().endswith(".json") else read_csv(path)
    frames = [name for name in ("start_frame", "end_frame") if name in table]
    if frames:
        raise ConfigError(
            f"{path} has the column {frames[0]}, and steps are known by their times: give start and end "
            "in seconds"
        )
    annotations = annotations_of(table, path, whole_files(source.table()).tolist())
    if not multi_label:
        require_single(annotations, path)
    return annotations


def load_annotated(settings: TrainSettings, config: TrainConfig) -> Loaded:
    """The annotated videos of a training, and the first stage for a later `predict`."""
    clips = annotated_videos(settings.store, settings.annotations, multi_label=settings.multi_label)
    source = clips.source
    assert isinstance(source, store.Store)
    first_stage = dict(source.attributes.get("first_stage", {}))
    first_stage["clip_seconds"] = clip_seconds(source.table())
    for note in video_notes(clips, split_videos(clips, config)):
        notice(note)
    return Loaded(clips=clips, first_stage=first_stage)


def annotated_videos(stores: str, path: str, *, multi_label: bool = False) -> StepClips:
    """The annotated videos of one store. Prints what is left out. Raises as its parts do."""
    require_one_store(stores, "annotations are held against the steps of one store")
    if "," in stores:
        raise ConfigError(
            f"store is {stores!r}, several views of the same clips: name one of them with --annotations"
        )
    source = store.open(stores, frozen=True)
    annotations = read_annotations(path, source, multi_label=multi_label)
    if annotations.unknown:
        some = annotations.unknown[:SHOWN]
        notice(
            f"not in the store, of the annotated videos: {len(annotations.unknown)} ({', '.join(some)}"
            + ", …" * (len(annotations.unknown) > SHOWN)
            + ")"
        )
    return load_videos(source, annotations, multi_label=multi_label)
