"""Streams of the same clips, joined step by step into one source: `STORE=a.zarr+b.zarr`.

A step of the joined source is the numbers of all streams one after another, at the steps of the first
stream. Everything behind a source (splits, heads, runs) sees one vector per step; which channels are
whose is in `streams`.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipeline.errors import ConfigError, SpecMismatch
from pipeline.heads.alignment import APART, IN_ORDER, NEAREST, StepTimes, align, at_steps
from pipeline.heads.holdout import Holdout, holdouts_of
from pipeline.heads.joining import LACKING, NOT_JOINED, OTHER_BYTES, WITHOUT_TIMES, match_clips
from pipeline.heads.source import Array, Mask, Rows, SequencesLike, SequenceSource, contents
from pipeline.heads.streams import Stream, joined_fingerprint, joined_spec, streams_of

BLOCK = 4096
"""Clips whose steps are aligned at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """Some clips of a join: features (n, steps, channels), mask (n, steps), rows (n,)."""

    features: Array
    mask: Mask
    rows: Rows


class JoinedSource:
    """A `SequenceSource` of several, its rows those of the first that can be joined.

    sources: with `steps_of`, as a store has it, each as heads are to read it. `notes` are sentences for
    the user: clips that are left out, and steps that are aligned by time.

    Raises `SpecMismatch` for fewer than two streams, the same features twice, pixels, or streams that
    disagree on a clip; `ConfigError` if they share no clip.
    """

    def __init__(self, sources: Sequence[SequenceSource]) -> None:
        self.sources = tuple(sources)
        self.streams = streams_of(self.sources)
        names = [getattr(source, "url", stream.name) for source, stream in self._pairs()]
        matched = match_clips([source.table() for source in self.sources], names)
        self.url = "+".join(map(str, names))
        self.spec: dict[str, Any] = joined_spec(self.streams)
        self.fingerprint = joined_fingerprint(self.streams)
        self._rows, self._numbers = matched.rows, matched.numbers
        self._table, self._example = matched.table, dict(matched.example)
        self.left_out: dict[str, int] = dict(matched.left_out)
        self.notes: list[str] = []
        self._look_at_times()
        self._table = self._table.assign(**self._stream_digests())
        self.notes = [*self._left_out_notes(), *self.notes]
        self.test_sets = self._test_sets()

    def __repr__(self) -> str:
        return f"JoinedSource({self.url}: {len(self._rows):,} clips, {self.steps} × {self.shape})"

    @property
    def classes(self) -> list[str]:
        """The labels that occur, sorted."""
        return sorted(set(self._table.loc[self._rows, "label"].astype(str)) - {""})

    @property
    def steps(self) -> int:
        """The steps of the first stream."""
        return int(self.sources[0].steps)

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels,) of all streams."""
        return (self.streams[-1].stop,)

    @property
    def skeleton(self) -> bool:
        """Whether a stream is read as skeletons."""
        return any(stream.skeleton for stream in self.streams)

    def table(self) -> pd.DataFrame:
        """The first stream's table; a ready clip that is not joined has the status `NOT_JOINED`."""
        return self._table.copy()

    def digests(self, rows: Any) -> npt.NDArray[np.uint32]:
        """(n,) uint32: equal ones, equal digests in every stream."""
        each = self.stream_digests(rows)
        return np.array([zlib.crc32(row.tobytes()) for row in each], dtype=np.uint32)

    def stream_digests(self, rows: Any) -> npt.NDArray[np.uint32]:
        """(n, streams) uint32: the digest of each row's features in every stream."""
        numbers = self._numbers_of(rows)
        parts = [source.digests(numbers[:, i]) for i, source in enumerate(self.sources)]
        return np.stack(parts, axis=1).astype(np.uint32).reshape(len(numbers), len(self.sources))

    def load(self, rows: Any = None) -> Joined:
        """The joined steps of these rows; of all where None. A row that a stream leaves out is left out.

        Raises `ValueError` for a row that is not joined.
        """
        return self._load(rows, range(len(self.sources)))

    def load_stream(self, rows: Any, number: int) -> Joined:
        """The same of one stream alone, at the steps of the first."""
        return self._load(rows, (number,))

    def alone(self, number: int) -> StreamSource:
        """One stream, from 0, as a source of the same rows."""
        return StreamSource(self, number)

    def batches(self, rows: Any = None, size: int = 32, **order: Any) -> Iterator[Joined]:
        """`size` rows at a time, in the order given."""
        wanted = self._rows if rows is None else np.asarray(rows, dtype=np.int64)
        for start in range(0, len(wanted), size):
            yield self.load(wanted[start : start + size])

    def _load(self, rows: Any, which: Sequence[int] | range) -> Joined:
        wanted = self._rows if rows is None else np.atleast_1d(np.asarray(rows, dtype=np.int64))
        numbers = self._numbers_of(wanted)
        # Times before features: features that match a frozen snapshot's digests are of the same version
        # as what was read before them.
        times = {i: StepTimes.of(self.sources[i], numbers[:, i]) for i in {0, *which}}
        read = {i: self.sources[i].load(numbers[:, i]) for i in which}
        places = {i: _places(each, numbers[:, i]) for i, each in read.items()}
        sound = np.all([place >= 0 for place in places.values()], axis=0)
        aligned = {i: align(times[0], times[i]) for i in which}
        sound &= np.all([each.how != APART for each in aligned.values()], axis=0)
        mask = times[0].real[sound]
        parts = [
            at_steps(np.asarray(read[i].features)[places[i][sound]], aligned[i].of(sound))
            for i in which
        ]
        features = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)
        features[~mask] = 0
        return Joined(features=features, mask=mask, rows=wanted[sound])

    def _pairs(self) -> list[tuple[SequenceSource, Stream]]:
        return list(zip(self.sources, self.streams, strict=True))

    def _numbers_of(self, rows: Any) -> Rows:
        """(n, streams): the rows of these clips in every stream."""
        wanted = np.atleast_1d(np.asarray(rows, dtype=np.int64))
        at = np.minimum(np.searchsorted(self._rows, wanted), len(self._rows) - 1)
        if (self._rows[at] != wanted).any():
            absent = wanted[self._rows[at] != wanted][:5].tolist()
            raise ValueError(f"rows {absent} are not joined: choose rows whose status is ready")
        return self._numbers[at]

    def _look_at_times(self) -> None:
        """Leave out clips whose steps cannot be aligned, and note how the others are."""
        lost = np.zeros(len(self._rows), bool)
        counts = {(i, how): 0 for i in range(len(self.sources)) for how in (NEAREST, IN_ORDER)}
        farthest = np.zeros(len(self.sources))
        for start in range(0, len(self._rows), BLOCK):
            part = slice(start, start + BLOCK)
            first = StepTimes.of(self.sources[0], self._numbers[part, 0])
            for i in range(1, len(self.sources)):
                aligned = align(first, StepTimes.of(self.sources[i], self._numbers[part, i]))
                lost[part] |= aligned.how == APART
                farthest[i] = max(farthest[i], float(aligned.gap_s.max(initial=0)))
                for how in (NEAREST, IN_ORDER):
                    counts[i, how] += int((aligned.how == how).sum())
        for (i, how), count in counts.items():
            if count:
                self.notes.append(self._aligned_note(i, how, count, float(farthest[i])))
        if lost.any():
            self.left_out[WITHOUT_TIMES] = int(lost.sum())
            self._example[WITHOUT_TIMES] = str(self._table.loc[self._rows[lost][0], "video_id"])
            self._table.loc[self._rows[lost], "status"] = NOT_JOINED
            self._rows, self._numbers = self._rows[~lost], self._numbers[~lost]
        if not len(self._rows):
            raise ConfigError(
                f"the steps of no clip of {self.url} can be aligned: the streams have different numbers "
                "of steps and not all have times, so make them with `features`"
            )

    def _aligned_note(self, stream: int, how: int, count: int, gap_s: float) -> str:
        whose = f"{count} of {len(self._rows)} clips of {self.streams[stream].name}"
        if how == IN_ORDER:
            return f"the steps of {whose} have no known times: they are joined one by one"
        return (
            f"the steps of {whose} show other frames than those of {self.streams[0].name}: the nearest "
            f"in time are joined, at most {gap_s:.2f} s apart"
        )

    def _left_out_notes(self) -> list[str]:
        why = {
            LACKING: "are not ready in every stream",
            OTHER_BYTES: "were made from other bytes in one stream than in another",
            WITHOUT_TIMES: "have steps that cannot be aligned, without times and different in number",
        }
        return [
            f"{count} clips {why[reason]} and are left out (such as {self._example[reason]})"
            for reason, count in self.left_out.items()
        ]

    def _stream_digests(self) -> dict[str, npt.NDArray[np.uint32]]:
        """Column `stream_N` of the table → the digests of the N-th stream; 0 for a row not joined."""
        digests = self.stream_digests(self._rows)
        places = self._table.index.get_indexer(pd.Index(self._rows))
        columns = {}
        for i in range(len(self.sources)):
            column = np.zeros(len(self._table), np.uint32)
            column[places] = digests[:, i]
            columns[f"stream_{i + 1}"] = column
        return columns

    def _test_sets(self) -> Mapping[str, Any]:
        """The streams' test sets. Raises `SpecMismatch` if two of a name have different clips."""
        kept: dict[str, Holdout] = {}
        for source, stream in self._pairs():
            for holdout in holdouts_of(source):
                if kept.setdefault(holdout.name, holdout).video_ids != holdout.video_ids:
                    raise SpecMismatch(
                        f"{stream.name} has other clips in its test set {holdout.name} than another "
                        "stream: freeze one of them under another name"
                    )
        joined = self._table.loc[self._rows].assign(digest=self.digests(self._rows))
        sets = {}
        for name, holdout in kept.items():
            known = contents(joined[holdout.tested(joined)])
            values = holdout.to_dict()
            sets[name] = values | {"contents": sorted({*values["contents"], *known} - {""})}
        return sets


class StreamSource:
    """One stream of a join, at the steps of the first, for the same rows."""

    def __init__(self, joined: JoinedSource, number: int) -> None:
        stream = joined.streams[number]
        self.joined, self.number = joined, number
        self.fingerprint, self.spec = stream.fingerprint, dict(stream.spec)
        self.shape: tuple[int, ...] = (stream.stop - stream.start,)
        self.steps, self.classes, self.url = joined.steps, joined.classes, stream.url

    def table(self) -> pd.DataFrame:
        """That of the join."""
        return self.joined.table()

    def digests(self, rows: Any) -> npt.NDArray[np.uint32]:
        """(n,) uint32 of this stream's features."""
        return self.joined.stream_digests(rows)[:, self.number]

    def load(self, rows: Any = None) -> Joined:
        """Its steps, as `JoinedSource.load`."""
        return self.joined.load_stream(rows, self.number)

    def batches(self, rows: Any, size: int = 32) -> Iterator[Joined]:
        """`size` rows at a time, in the order given."""
        for start in range(0, len(rows), size):
            yield self.load(rows[start : start + size])


def _places(read: SequencesLike, wanted: Rows) -> Rows:
    """(n,): where in `read` each of the wanted rows is, −1 if it was left out."""
    got = np.asarray(read.rows, dtype=np.int64)
    if np.array_equal(got, wanted):
        return np.arange(len(wanted))
    position = {int(row): i for i, row in enumerate(got)}
    return np.array([position.get(int(row), -1) for row in wanted], dtype=np.int64)
