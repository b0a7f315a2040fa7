"""`read_clip`: the decoders in their order, and the reason where all of them fail."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UnreadableClip
from pipeline.features.decoding import seeking
from pipeline.features.decoding.fit import write_rgb
from pipeline.features.decoding.opencv import OpenCVSource
from pipeline.features.decoding.pyav import PyAVSource
from pipeline.features.decoding.through import Described, Kept, OnProgress, Source, read_through
from pipeline.features.decoding.values import ClipFrames, FramePlan

_AWAY = {
    errno.EIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENOTCONN,
    errno.ENETDOWN,
    errno.ENETUNREACH,
}


def read_clip(
    path: str,
    plan: FramePlan,
    *,
    out: NDArray[np.uint8] | None = None,
    on_progress: OnProgress = lambda: None,
) -> ClipFrames:
    """The sampled frames of the clip at `path`, read in this process.

    OpenCV first; PyAV where OpenCV opens nothing or yields nothing, and for long clips whose
    wanted frames can be sought exactly. Which of them read the clip is in the result.

    path: a local file. out: (steps, size, size, 3) uint8 to write the frames into, else fresh.
    on_progress: called for every frame that is decoded.
    Raises `UnreadableClip` with a reason of `reasons.FAILURES`; `MemoryError` passes through.
    """
    began = time.thread_time()
    path = os.path.abspath(path)
    _check_file(path)
    source, kept, indices = _read(path, plan, on_progress)
    frames = np.empty(plan.frames_shape, dtype=np.uint8) if out is None else out
    for place, index in enumerate(indices.tolist()):
        write_rgb(kept.pictures[index], frames[place])
    times = np.array([kept.times[i] for i in indices.tolist()], dtype=np.float64)
    decoded = kept.frames - len(kept.lost)
    short = kept.ended and _clearly_fewer(decoded, source.declared)
    return ClipFrames(
        frames=frames[: len(indices)],
        frame_index=indices.astype(np.int32),
        timestamp=(times - kept.first_time).astype(np.float32),
        fps=source.fps,
        width=source.width,
        height=source.height,
        frames_declared=source.declared,
        frames_decoded=decoded,
        decoder=source.decoder,
        reason="fewer_frames" if short or kept.lost else "",
        decode_s=time.thread_time() - began,
    )


def _read(
    path: str, plan: FramePlan, on_progress: OnProgress
) -> tuple[Described, Kept, NDArray[np.int64]]:
    try:
        source = OpenCVSource(path, plan.max_pixels)
    except UnreadableClip as refusal:
        if refusal.reason != "unreadable":
            raise
        return _by_pyav(path, plan, on_progress)
    if source.declared >= seeking.LONG_FRAMES:
        sought = seeking.read_by_seeking(path, plan, source, on_progress)
        if sought is not None:
            source.close()
            return sought
    result = read_through(_once(source, path, plan), plan, on_progress)
    return result if len(result[2]) else _by_pyav(path, plan, on_progress)


def _by_pyav(
    path: str, plan: FramePlan, on_progress: OnProgress
) -> tuple[Described, Kept, NDArray[np.int64]]:
    result = read_through(lambda: PyAVSource(path, plan.max_pixels), plan, on_progress)
    if not len(result[2]):
        raise UnreadableClip("no_frames", "the file opens, but no frame of it decodes")
    return result


def _once(source: OpenCVSource, path: str, plan: FramePlan) -> Callable[[], Source]:
    """A factory that hands out the source that is already open first, fresh ones later."""
    ready: list[Source] = [source]
    return lambda: ready.pop() if ready else OpenCVSource(path, plan.max_pixels)


def _check_file(path: str) -> None:
    """Raise what the file system, rather than a decoder, has against the clip."""
    try:
        with open(path, "rb") as file:
            empty = not file.read(1)
    except FileNotFoundError:
        raise UnreadableClip("missing", "the file is gone") from None
    except OSError as error:
        reason = "unreachable" if error.errno in _AWAY else "unreadable"
        raise UnreadableClip(reason, error.strerror or str(error)) from None
    if empty:
        raise UnreadableClip("unreadable", "the file is empty")


def _clearly_fewer(decoded: int, declared: int) -> bool:
    """More than two frames and more than a twentieth short: less is a header's rounding."""
    return declared - decoded > max(2, declared // 20)
