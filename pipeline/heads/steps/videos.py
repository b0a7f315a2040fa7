"""The annotated videos of a store: each file's rows put end to end, with a label for every step."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd

from pipeline.errors import ConfigError, SpecMismatch
from pipeline.heads.clips import MEMORY_SHARE, Clips, free_bytes
from pipeline.heads.holdout import holdouts_of, kept_out
from pipeline.heads.source import READY, Array, Mask, Rows, SequenceSource, normalised
from pipeline.heads.spans import whole_files
from pipeline.heads.steps.annotations import (
    BACKGROUND,
    Annotation,
    Annotations,
    targets_of,
)
from pipeline.heads.steps.tables import left_out_of, lines_of, stretches_of


class FileSteps(Protocol):
    """All steps of a file in order of time: features (n, *shape), times (n,) seconds, rows (n,)."""

    @property
    def features(self) -> Array: ...
    @property
    def times(self) -> Array: ...
    @property
    def rows(self) -> Rows: ...


@runtime_checkable
class FileSource(SequenceSource, Protocol):
    """A source that also serves whole files, as a store does."""

    def sequence(self, file: str) -> FileSteps: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Video:
    """One annotated file.

    times: (n,) seconds of its steps in the whole file
    targets: (n, classes) bool, which labels apply at each
    spans: its annotations
    stretches: (first, last) positions of steps whose rows follow each other without a gap
    """

    file: str
    times: Array
    targets: Mask
    spans: tuple[Annotation, ...]
    stretches: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        return len(self.times)

    def __repr__(self) -> str:
        return (
            f"Video({self.file}, {len(self)} steps in {len(self.stretches)} stretches, "
            f"{len(self.spans)} segments)"
        )

    @property
    def step_s(self) -> float:
        """Seconds from step to step, as a median."""
        return float(np.median(np.diff(self.times))) if len(self) > 1 else 1.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepClips(Clips):
    """Annotated videos as the clips of a training: one clip is one file, with a label for every step.

    `table` has a line per file: the label is a text of its annotations, the group that of all its rows.
    `rows` are the numbers of the files' first rows. `labels` have no meaning.
    """

    videos: tuple[Video, ...] = ()
    multi_label: bool = False
    unannotated: tuple[str, ...] = ()
    held: dict[int, Array] = field(default_factory=dict)

    def __repr__(self) -> str:
        return (
            f"StepClips({len(self)} videos, {sum(map(len, self.videos))} steps of {self.shape}, "
            f"classes={len(self.classes)}, multi_label={self.multi_label}, "
            f"spec={self.fingerprint[:12]}, left_out={dict(self.left_out)})"
        )

    def features_of(self, position: int) -> Array:
        """(n, *shape) features of all steps of a video, in memory where they fit."""
        if position in self.held:
            return self.held[position]
        video = self.videos[position]
        assert isinstance(self.source, FileSource)
        read = self.source.sequence(video.file)
        if not np.array_equal(read.times, video.times):
            raise ConfigError(
                f"the rows of {video.file} can no longer be read as they were when the training began: "
                "run `features`, then train again"
            )
        return np.asarray(read.features)

    def taken(
        self, at: Rows, rows: Rows, table: pd.DataFrame, classes: tuple[str, ...]
    ) -> StepClips:
        """The videos at these positions under these row numbers and classes; see `Identity.align`."""
        videos = [self.videos[i] for i in at]
        return replace(
            self,
            labels=self.labels[at],
            rows=rows,
            digests=self.digests[at],
            table=table,
            classes=classes,
            videos=tuple(
                replace(each, targets=targets_of(each.times, each.spans, classes))
                for each in videos
            ),
            held={new: self.held[old] for new, old in enumerate(at) if old in self.held},
        )


def load_videos(
    source: SequenceSource, annotations: Annotations, *, multi_label: bool = False
) -> StepClips:
    """The annotated files of a store, with a label for every step.

    Files without annotations, rows that are not ready, and files of which a named test set keeps a row
    out are left out and counted. Raises `SpecMismatch` for a source that has no whole files, and
    `ConfigError` where nothing is left, features are not finite, or there are fewer than two classes
    (of several labels at a time: fewer than one).
    """
    if not isinstance(source, FileSource):
        raise SpecMismatch(
            "annotations are held against the times of one store's steps: name one store, not views or "
            "streams of several"
        )
    table = normalised(source.table())
    files = whole_files(table)
    out = kept_out(holdouts_of(source), table)
    held_out = set(files[out])
    ready = (table["status"] == READY).to_numpy()
    usable = [
        file
        for file in dict.fromkeys(files[ready].tolist())
        if file in annotations.by_file and file not in held_out
    ]
    if not usable:
        raise ConfigError(
            f"none of the {len(annotations.by_file)} annotated videos has a ready row: run "
            "`features` first"
        )
    unannotated = tuple(sorted(set(files[ready]) - set(annotations.by_file)))
    read = _Reader(source, table, files)
    steps = {file: read(file) for file in usable}
    classes = _classes(steps, annotations, multi_label)
    videos = tuple(
        each.video(file, annotations.by_file[file], classes) for file, each in steps.items()
    )
    lines = lines_of(table, files, annotations, usable)
    return StepClips(
        source=source,
        features=None,
        mask=None,
        labels=np.zeros(len(videos), np.int64),
        rows=lines.index.to_numpy(dtype=np.int64),
        digests=np.array([each.digest for each in steps.values()], dtype=np.uint32),
        table=lines.assign(digest=[each.digest for each in steps.values()]),
        classes=classes,
        fingerprint=source.fingerprint,
        spec=dict(source.spec),
        steps=int(source.steps),
        shape=tuple(int(n) for n in source.shape),
        left_out=left_out_of(table, ready, unannotated, held_out & set(annotations.by_file)),
        videos=videos,
        multi_label=multi_label,
        unannotated=unannotated,
        held=read.held,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Steps:
    times: Array
    stretches: tuple[tuple[int, int], ...]
    digest: int

    def video(self, file: str, spans: tuple[Annotation, ...], classes: tuple[str, ...]) -> Video:
        return Video(
            file=file,
            times=self.times,
            targets=targets_of(self.times, spans, classes),
            spans=spans,
            stretches=self.stretches,
        )


class _Reader:
    """Reads files; keeps their features while they fit into a share of the free memory."""

    def __init__(self, source: FileSource, table: pd.DataFrame, files: Array) -> None:
        self._source, self._table = source, table
        ready = (table["status"] == READY).to_numpy()
        self._rows = pd.Series(table.index[ready]).groupby(files[ready]).apply(list).to_dict()
        self._room = int(MEMORY_SHARE * free_bytes())
        self._count = 0
        self.held: dict[int, Array] = {}

    def __call__(self, file: str) -> _Steps:
        read = self._source.sequence(file)
        features = np.asarray(read.features)
        if not len(features):
            raise ConfigError(f"{file} has no step that can be read: run `verify --repair`")
        if not np.isfinite(features).all():
            raise ConfigError(
                f"the features of {file} are not finite: run `verify --repair`, then `features`"
            )
        if features.nbytes <= self._room:
            self._room -= features.nbytes
            self.held[self._count] = features
        self._count += 1
        digests = np.asarray(self._source.digests(self._rows[file]), dtype=np.uint32)
        return _Steps(
            times=np.asarray(read.times),
            stretches=stretches_of(np.asarray(read.rows), self._table),
            digest=zlib.crc32(digests.tobytes()),
        )


def _classes(
    steps: Mapping[str, _Steps], annotations: Annotations, multi_label: bool
) -> tuple[str, ...]:
    """The labels that occur, sorted; of one label at a time `BACKGROUND` before them, if it occurs."""
    spans = {file: annotations.by_file[file] for file in steps}
    labels = sorted({each.label for own in spans.values() for each in own})
    if not multi_label:
        bare = any(
            not targets_of(each.times, spans[file], labels).any(axis=1).all()
            for file, each in steps.items()
        )
        if bare:
            labels = [BACKGROUND, *(label for label in labels if label != BACKGROUND)]
    least = 1 if multi_label else 2
    if len(labels) < least:
        raise ConfigError(
            f"the annotations of {len(steps)} videos give their steps {len(labels)} "
            f"label{'s' * (len(labels) != 1)} ({', '.join(labels) or 'none'}): a head needs "
            f"{least} at least, {BACKGROUND} counted"
        )
    return tuple(labels)
