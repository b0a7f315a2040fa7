"""CNN batches that are filled across clips and callers.

A few threads (as many as the backbone wants) take frames in order of arrival, whichever clip or
call they come from. A batch leaves full; a partial one only when no more frames are to be expected.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.features.backbones.family import Backbone
from pipeline.features.jobs import Job, Jobs, Piece, blocks_of, frames_in_place

# A partial batch does not wait longer than this for a decoder that is slow or hangs.
_PATIENCE_S = 2.0


class CnnThreads:
    """The threads that run a backbone over whatever jobs are put in, until it is closed.

    `more_expected` says whether further frames are on their way; it must not block, and `changed`
    is to be called when its answer may have changed. Seconds: `busy_s` inside the engine, `idle_s`
    waiting while frames were there or expected, both summed over the threads.
    """

    def __init__(self, backbone: Backbone, *, more_expected: Callable[[], bool]) -> None:
        self.busy_s = 0.0
        self.idle_s = 0.0
        self._backbone = backbone
        self._more_expected = more_expected
        self._waiting = Jobs()
        self._closed = False
        self._idle = 0
        self._news = threading.Condition()
        self._threads = [
            threading.Thread(target=self._run, name=f"cnn-{i}", daemon=True)
            for i in range(backbone.concurrency)
        ]
        for thread in self._threads:
            thread.start()

    def put(self, job: Job) -> None:
        """Queue a job's frames behind those that wait."""
        with self._news:
            self._waiting.put(job)
            self._wake()

    def drop(self, job: Job) -> bool:
        """Take a job out if none of its frames has reached the CNN; whether it was."""
        with self._news:
            if not self._waiting.drop(job):
                return False
            job.frames = None
        job.on_read()
        return True

    def changed(self) -> None:
        """Look again whether frames are expected."""
        with self._news:
            self._wake()

    def close(self) -> None:
        """End the threads after their current batch. Queued jobs stay unfinished."""
        with self._news:
            self._closed = True
            self._news.notify_all()
        for thread in self._threads:
            thread.join()

    def _wake(self) -> None:
        # Only for a batch, or for threads that now have something to wait for: each clip changes
        # something, and threads that wake in vain take the interpreter from those at work.
        if self._idle or self._due(self._more_expected(), 0.0):
            self._news.notify_all()

    def _run(self) -> None:
        size = self._backbone.size
        buffer = np.empty((self._backbone.batch, size, size, 3), np.uint8)
        while pieces := self._take():
            there = frames_in_place(pieces)
            blocks = [] if there is not None else blocks_of(pieces, self._backbone)
            in_place = there is not None or bool(blocks)
            frames = there if in_place else self._gather(pieces, buffer)
            started = time.perf_counter()
            features, error = None, None
            try:
                if frames is None:
                    features = self._backbone.features_of_blocks(blocks)
                else:
                    features = self._features(frames, pieces)
                self._require_declared(features, pieces[0].job.features)
            except Exception as caught:
                features, error = None, caught
            seconds = time.perf_counter() - started
            if in_place:
                for piece in pieces:
                    self._frames_read(piece)
            if features is not None:
                _hand_out(pieces, features)
            with self._news:
                self.busy_s += seconds
                for piece in pieces:
                    piece.job.done += len(piece)
                over = [p.job for p in pieces if error is not None or p.job.done == p.job.count]
            for job in over:
                job.on_done(error)

    def _features(self, frames: NDArray[np.uint8], pieces: list[Piece]) -> NDArray[Any]:
        gaps_s = [p.job.gaps_s[p.start : p.stop] for p in pieces if p.job.gaps_s is not None]
        if not gaps_s:
            return self._backbone(frames)
        return self._backbone(frames, np.concatenate(gaps_s))

    def _require_declared(self, features: NDArray[Any], stored: NDArray[Any]) -> None:
        """Raise `ValueError` where a step is of another shape or kind than the store has room for."""
        given, declared = features.shape[1:], stored.shape[1:]
        if given != declared or not np.can_cast(features.dtype, stored.dtype, "same_kind"):
            raise ValueError(
                f"backbone {self._backbone.name} gave {given} {features.dtype} for a frame and declares "
                f"{declared} {stored.dtype}: mend its `BackboneKind`, or what it returns"
            )

    def _gather(self, pieces: list[Piece], buffer: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Copy the pieces' frames into a batch, one after the other."""
        if pieces[0].job.windows is not None:
            frames = np.concatenate([piece.frames for piece in pieces])
            for piece in pieces:
                self._frames_read(piece)
            return frames
        count = 0
        for piece in pieces:
            buffer[count : count + len(piece)] = piece.frames
            count += len(piece)
            self._frames_read(piece)
        return buffer[:count]

    def _frames_read(self, piece: Piece) -> None:
        job = piece.job
        with self._news:
            job.read += len(piece)
            read = job.read == job.count
            if read:
                job.frames = None
        if read:
            job.on_read()

    def _take(self) -> list[Piece]:
        """The next batch, waiting for it; empty when the threads are to end."""
        with self._news:
            began = time.perf_counter()
            while not self._closed:
                now = time.perf_counter()
                expected = self._more_expected()
                if self._due(expected, now - began):
                    if self._backbone.whole_clips:
                        return self._waiting.cut_clip()
                    return self._waiting.cut(self._backbone.batch)
                # A thread without frames to expect is idle, which does not count as waiting.
                if not expected and not self._waiting.frames:
                    self._idle += 1
                    self._news.wait()
                    self._idle -= 1
                    began = time.perf_counter()
                else:
                    self._news.wait(_PATIENCE_S)
                    self.idle_s += time.perf_counter() - now
            return []

    def _due(self, expected: bool, waited_s: float) -> bool:
        if self._backbone.whole_clips or self._waiting.frames >= self._backbone.batch:
            return self._waiting.frames > 0
        return self._waiting.frames > 0 and (not expected or waited_s >= _PATIENCE_S)


def _hand_out(pieces: list[Piece], features: NDArray[Any]) -> None:
    """Copy a batch's features to its jobs."""
    at = 0
    # A finite float32 may be none in the features' dtype: the clip's result says so.
    with np.errstate(over="ignore", invalid="ignore"):
        for piece in pieces:
            piece.job.features[piece.start : piece.stop] = features[at : at + len(piece)]
            at += len(piece)
