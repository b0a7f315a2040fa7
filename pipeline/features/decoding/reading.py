"""`read_clip`: one clip's sampled frames, or the reason why it has none.

FFmpeg, through PyAV, is the only reader: what it says of stream, orientation, aspect, count and
times is the account of record, and a second decoder could only be slower or disagree. Decoding costs
the same in OpenCV, which wraps the same libraries; see docs/decoding.md for the measurements.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UnreadableClip
from pipeline.features.decoding import seeking
from pipeline.features.decoding.through import Kept, OnProgress, read_through
from pipeline.features.decoding.values import ClipFrames, DecoderFacts, FramePlan
from pipeline.features.decoding.video import Video
from pipeline.features.files import read_start
from pipeline.features.sampling import cut_off_s, rule_of
from pipeline.features.windows import Windows
from pipeline.spans import WHOLE

_AWAY = {
    *(errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH),
    *(errno.ENOTCONN, errno.ENETDOWN, errno.ENETUNREACH),
}


def read_clip(
    path: str,
    plan: FramePlan,
    *,
    out: NDArray[np.uint8] | None = None,
    on_progress: OnProgress = lambda: None,
) -> ClipFrames:
    """The sampled frames of the clip at `path`, read in this process.

    Long clips whose wanted frames can be sought exactly are sought through, all others are read
    from front to back.

    path: a local file. out: `plan.frames_shape` uint8 to write the frames into, else fresh.
    on_progress: called for every frame that is decoded.
    Raises `UnreadableClip` with a reason of `reasons.FAILURES`; `MemoryError` passes through.
    """
    began = time.thread_time()
    path = os.path.abspath(path)
    check_file(path)
    room = np.empty(plan.frames_shape, dtype=np.uint8) if out is None else out
    with contextlib.ExitStack() as opened:
        video = opened.enter_context(Video(path, plan.max_pixels))
        kept, wanted = Kept(plan, room, on_progress), None
        if video.expected() >= seeking.LONG_FRAMES:
            wanted = seeking.read_by_seeking(video, kept)
            if wanted is None:  # listing its packets has used it up
                video = opened.enter_context(Video(path, plan.max_pixels))
                kept = Kept(plan, room, on_progress)
        if wanted is None:
            wanted = read_through(video, kept, path)
        facts = _facts(video, kept, wanted)  # while the file is open
        reason = _warning(video, kept, wanted, cut_off=facts.cut_off_s > 0)
    if not len(wanted.steps):
        raise UnreadableClip("no_frames", "the file opens, but no frame of it decodes")
    return ClipFrames(
        frames=_frames(kept, wanted),
        frame_index=wanted.steps.astype(np.int32),
        timestamp=np.array(kept.times)[wanted.steps].astype(np.float32),
        windows=wanted.places if plan.window > 1 else None,
        gaps_s=wanted.gaps_s(np.array(kept.times)) if plan.window > 1 else None,
        **facts.facts,
        reason=reason,
        decode_s=time.thread_time() - began,
    )


def _frames(kept: Kept, wanted: Windows) -> NDArray[np.uint8]:
    """The wanted pictures, each once, in order: in the room, and put in order there if need be."""
    indices = wanted.frames.tolist()
    if list(kept.pictures)[: len(indices)] != indices:
        kept.room[: len(indices)] = np.stack([kept.pictures[index] for index in indices])
    return kept.room[: len(indices)]


def _warning(video: Video, kept: Kept, wanted: Windows, *, cut_off: bool) -> str:
    """The warning that a clip which was read carries, "" for none."""
    if kept.ended and video.falls_short(len(kept.times)):
        return "fewer_frames"
    if video.clock.mended:
        return "times_mended"
    if cut_off:
        return "cut_off"
    return "short_window" if wanted.short else ""


def _facts(video: Video, kept: Kept, wanted: Windows) -> DecoderFacts:
    """Every decoder column of a clip that was read, asked of the open file."""
    return DecoderFacts(
        fps=video.fps,
        width=video.width,
        height=video.height,
        pixel_aspect=video.pixel_aspect,
        frames_declared=video.declared,
        frames_decoded=len(kept.times),
        decoder="pyav",
        cut_off_s=_cut_off(video, kept, wanted),
    )


def _cut_off(video: Video, kept: Kept, wanted: Windows) -> float:
    """Seconds of the clip behind its steps; what was not read of it is known by its packets."""
    sampling = kept.plan.sampling
    if rule_of(sampling).needs_length or len(wanted.steps) < sampling.steps:
        return 0.0
    times = np.array(kept.times if kept.ended else kept.times + video.rest())
    return cut_off_s(sampling, times, WHOLE, frame_s=video.frame_s, tick_s=video.tick_s)


def check_file(path: str) -> None:
    """Raise what the file system, rather than a decoder, has against the clip.

    A file that does not answer is `unreachable`; what is no regular file is never opened.
    """
    try:
        empty = not read_start(path)
    except FileNotFoundError:
        raise UnreadableClip("missing", "the file is gone") from None
    except OSError as error:
        reason = "unreachable" if error.errno in _AWAY else "unreadable"
        raise UnreadableClip(reason, error.strerror or str(error)) from None
    if empty:
        raise UnreadableClip("unreadable", "the file is empty")
