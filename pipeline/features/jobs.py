"""The jobs that wait for a CNN, and the pieces of them that make a batch.

Decoders write one clip's frames behind another's. A batch whose frames lie together in that order is
read by the CNN where it lies; only of others a copy is made.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.features.backbones.family import Backbone
from pipeline.features.decoding.slots import Place, view
from pipeline.features.decoding.values import ClipFrames

MOST_PASSED = 4
"""Batches that lie together and pass over the job that has waited longest; then it is in the next."""


@dataclass(slots=True, eq=False)
class Job:
    """One clip's frames in the queue of the CNN.

    `frames` (n, size, size, 3) uint8, n ≥ 1, are read until `on_read` has been called; of steps of
    several frames, `windows` (n, window) says where those of each are, and `gaps_s` (n,) how far apart.
    What the CNN makes of them is written into `features` (n, *shape), cast to its dtype, and whole once
    `on_done` has been called with None. It may be called more than once with the engine's error. Both
    are called from the CNN's threads. `place` is where the frames lie among those of other clips.
    """

    frames: NDArray[np.uint8] | None
    features: NDArray[Any]
    on_read: Callable[[], None]
    on_done: Callable[[BaseException | None], None]
    windows: NDArray[np.int32] | None = None
    gaps_s: NDArray[np.float64] | None = None
    place: Place | None = None
    taken: int = 0
    read: int = 0
    done: int = 0

    @classmethod
    def of(
        cls,
        clip: ClipFrames,
        features: NDArray[Any],
        *,
        on_read: Callable[[], None],
        on_done: Callable[[BaseException | None], None],
    ) -> Self:
        """The job of a clip that was read."""
        place = clip.place if clip.windows is None else None
        return cls(clip.frames, features, on_read, on_done, clip.windows, clip.gaps_s, place)

    @property
    def count(self) -> int:
        """How many steps it has."""
        return len(self.features)


@dataclass(frozen=True, slots=True)
class Piece:
    """Steps `start` to `stop` of one job, as part of one CNN batch."""

    job: Job
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def frames(self) -> NDArray[np.uint8]:
        """(n, …) of these steps: where they lie, or copied into windows."""
        assert self.job.frames is not None
        if self.job.windows is None:
            return self.job.frames[self.start : self.stop]
        return self.job.frames[self.job.windows[self.start : self.stop]]

    def is_followed_by(self, other: Piece) -> bool:
        """Whether the other's frames, of the same shape, lie right behind these."""
        mine, its = self.job.place, other.job.place
        if mine is None or its is None or mine.memory is not its.memory:
            return False
        assert self.job.frames is not None
        assert other.job.frames is not None
        alike = self.job.frames.shape[1:] == other.job.frames.shape[1:]
        return alike and self._offset(self.stop) == other._offset(other.start)

    def _offset(self, step: int) -> int:
        """Where the frame of a step begins in the memory that the job lies in."""
        assert self.job.place is not None
        assert self.job.frames is not None
        frame_bytes: int = math.prod(self.job.frames.shape[1:])
        return self.job.place.offset + step * frame_bytes


def frames_in_place(pieces: list[Piece]) -> NDArray[np.uint8] | None:
    """The frames of a batch where they lie; None where they do not lie together."""
    first = pieces[0]
    if len(pieces) == 1:
        return first.frames
    if not all(one.is_followed_by(other) for one, other in itertools.pairwise(pieces)):
        return None
    assert first.job.place is not None
    assert first.job.frames is not None
    shape = (sum(map(len, pieces)), *first.job.frames.shape[1:])
    return view(first.job.place.memory, first._offset(first.start), shape)


def blocks_of(pieces: list[Piece], backbone: Backbone) -> list[NDArray[np.uint8]]:
    """A batch as blocks of frames where they lie; none where the backbone cannot take it so."""
    size = backbone.block
    if not size or sum(map(len, pieces)) != backbone.batch or any(len(p) % size for p in pieces):
        return []
    if any(p.job.windows is not None or p.job.gaps_s is not None for p in pieces):
        return []
    return [p.frames[at : at + size] for p in pieces for at in range(0, len(p), size)]


class Jobs:
    """Jobs in order of arrival. Not thread safe: `CnnThreads` guards it.

    frames: of all of them, that no batch has taken yet.
    """

    def __init__(self) -> None:
        self.frames = 0
        self._waiting: deque[Job] = deque()
        self._passed = 0

    def put(self, job: Job) -> None:
        """Queue a job behind those that wait."""
        self._waiting.append(job)
        self.frames += job.count

    def drop(self, job: Job) -> bool:
        """Take a job out if no batch has any of its frames; whether it was."""
        if job.taken or job not in self._waiting:
            return False
        self._waiting.remove(job)
        self.frames -= job.count
        return True

    def cut(self, most: int) -> list[Piece]:
        """Take up to `most` frames out: those that lie together where as many do, else the oldest."""
        oldest = self._waiting[0]
        together = self._together(most) if self._passed < MOST_PASSED else []
        pieces = self._taken(together or list(self._waiting), most)
        passed_over = any(job is oldest for job in self._waiting) and pieces[0].job is not oldest
        self._passed = self._passed + 1 if passed_over else 0
        return pieces

    def cut_clip(self) -> list[Piece]:
        """Take the oldest job out."""
        job = self._waiting[0]
        return self._taken([job], job.count)

    def _taken(self, jobs: Iterable[Job], room: int) -> list[Piece]:
        pieces: list[Piece] = []
        for job in jobs:
            piece = Piece(job, job.taken, min(job.count, job.taken + room))
            job.taken = piece.stop
            if job.taken == job.count:
                self._waiting.remove(job)
            pieces.append(piece)
            room -= len(piece)
            self.frames -= len(piece)
            if not room:
                break
        return pieces

    def _together(self, most: int) -> list[Job]:
        """Jobs with `most` frames that lie together; of several such runs the one that came first."""
        rest = [Piece(job, job.taken, job.count) for job in self._waiting if job.place is not None]
        if sum(map(len, rest)) < most:
            return []
        age = {id(piece.job): number for number, piece in enumerate(rest)}
        rest.sort(key=lambda piece: piece._offset(piece.start))
        runs: list[list[Piece]] = []
        for piece in rest:
            if runs and runs[-1][-1].is_followed_by(piece):
                runs[-1].append(piece)
            else:
                runs.append([piece])
        whole = [run for run in runs if sum(map(len, run)) >= most]
        first = min(whole, key=lambda run: min(age[id(piece.job)] for piece in run), default=[])
        return [piece.job for piece in first]
