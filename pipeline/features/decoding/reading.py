"""`read_clip`, `read_streams`: one clip's sampled frames, or the reason why it has none.

FFmpeg, through PyAV, is the only reader: what it says of stream, orientation, aspect, count and
times is the account of record, and a second decoder could only be slower or disagree. Decoding costs
the same in OpenCV, which wraps the same libraries; see docs/decoding.md for the measurements.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UnreadableClip
from pipeline.features.decoding import seeking
from pipeline.features.decoding.packets import NOT_EXACT
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
    from front to back, without decoding the disposable frames that are not wanted.

    path: a local file. out: `plan.frames_shape` uint8 to write the frames into, else fresh.
    on_progress: called for every frame that is decoded.
    Raises `UnreadableClip` with a reason of `reasons.FAILURES`; `MemoryError` passes through.
    """
    room = np.empty(plan.frames_shape, dtype=np.uint8) if out is None else out
    return read_streams(path, [plan], [room], on_progress=on_progress)[0]


def read_streams(
    path: str,
    plans: Sequence[FramePlan],
    rooms: Sequence[NDArray[np.uint8]],
    *,
    on_progress: OnProgress = lambda: None,
) -> list[ClipFrames]:
    """What each plan takes of the clip at `path`, from one decoding of it; as `read_clip`.

    rooms: `frames_shape` uint8 of each plan. The seconds of decoding are the first one's.
    """
    began = time.thread_time()
    path = os.path.abspath(path)
    check_file(path)
    most = min(plan.max_pixels for plan in plans)

    with contextlib.ExitStack() as opened:

        def begun() -> tuple[Video, list[Kept]]:
            video = opened.enter_context(Video(path, most))
            video.is_shared = len(plans) > 1
            return video, [Kept(*pair, on_progress) for pair in zip(plans, rooms, strict=True)]

        (video, each), wanted = begun(), None
        if video.expected() >= seeking.LONG_FRAMES:
            wanted = seeking.read_by_seeking(video, each)
            if wanted is None:  # listing its packets has used it up
                video, each = begun()
        if wanted is None:
            try:
                wanted = read_through(video, each, path, whole=False)
            except NOT_EXACT:
                video, each = begun()
                wanted = read_through(video, each, path)
        pairs = list(zip(each, wanted, strict=True))
        # While the file is open.
        all_times = functools.cache(lambda: _all_times(video, each))
        facts = [
            video.facts(
                declared=video.declared,
                decoded=len(kept.times),
                cut_off_s=_cut_off(video, kept, its, all_times),
            )
            for kept, its in pairs
        ]
        reasons = [
            _warning(video, kept, its, cut_off=told.cut_off_s > 0)
            for (kept, its), told in zip(pairs, facts, strict=True)
        ]
    if not all(len(its.steps) for its in wanted):
        raise UnreadableClip("no_frames", "the file opens, but no frame of it decodes")
    clips = [
        _clip(kept, its, told, reason)
        for (kept, its), told, reason in zip(pairs, facts, reasons, strict=True)
    ]
    return [replace(clips[0], decode_s=time.thread_time() - began), *clips[1:]]


def _clip(kept: Kept, wanted: Windows, facts: DecoderFacts, reason: str) -> ClipFrames:
    several, times = kept.plan.window > 1, np.array(kept.times)
    return ClipFrames(
        frames=_frames(kept, wanted),
        frame_index=wanted.steps.astype(np.int32),
        timestamp=times[wanted.steps].astype(np.float32),
        windows=wanted.places if several else None,
        gaps_s=wanted.gaps_s(times) if several else None,
        **facts.facts,
        reason=reason,
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


def _cut_off(
    video: Video, kept: Kept, wanted: Windows, all_times: Callable[[], list[float]]
) -> float:
    """Seconds of the clip behind its steps."""
    sampling = kept.plan.sampling
    if rule_of(sampling).needs_length or len(wanted.steps) < sampling.steps:
        return 0.0
    clock = {"frame_s": video.frame_s, "tick_s": video.tick_s}
    return cut_off_s(sampling, np.array(all_times()), WHOLE, **clock)


def _all_times(video: Video, each: Sequence[Kept]) -> list[float]:
    """When the clip's frames are shown; those that were not read are known by their packets."""
    most = max(each, key=lambda kept: len(kept.times))
    return most.times if most.ended else most.times + video.rest()


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
