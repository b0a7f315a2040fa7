"""The frames that a run kept of broken clips, beside those that `ffmpeg` itself decodes of them.

Releases of FFmpeg conceal damage differently, and PyAV brings another than the system's. So where the
two disagree, a bare loop over PyAV decides: only what neither of them gives is a fault of ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from numpy.typing import NDArray

import store
from pipeline.spec import Spec
from tests.frames.comparing import LEVELS, fitted
from tests.frames.corpus import HERE
from tests.frames.reference import NoReference, Reference, reference

BARE_LEVELS = 6.0
"""The same frame by PyAV's own conversion may be so far away: 10 bits are rounded otherwise."""

LIMIT_S = 60.0
"""Seconds for `ffmpeg` to decode one broken clip."""


@dataclass(slots=True)
class Beside:
    """What the comparison found. Each list is of clips' ids with words.

    alike: how many ready clips are as `ffmpeg` decodes them. by_release: those that are as PyAV's
    FFmpeg decodes them, and not as the system's. unlike: those that are neither. alone: ready here,
    no frame by either. missed: failed here, frames by both.
    """

    alike: int = 0
    by_release: list[str] = field(default_factory=list)
    unlike: list[str] = field(default_factory=list)
    alone: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)

    @property
    def faults(self) -> list[str]:
        return [*self.unlike, *self.alone, *self.missed]


def beside_ffmpeg(url: str, clips: Path) -> Beside | None:
    """Compare a store of small frames with the clips under a folder; None without `ffmpeg`."""
    if not HERE:
        return None
    kept = store.open(url)
    table, spec = kept.table(), Spec.from_dict(kept.spec)
    found = Beside()
    for line in table.itertuples():
        path = clips / line.video_id
        try:
            told = reference(path, limit_s=LIMIT_S)
        except NoReference as error:
            if line.state == "ready":
                words = f"{line.video_id} is ready, but {error}"
                apart = len(bare_frames(path)) != line.frames_decoded
                (found.alone if apart else found.by_release).append(words)
            continue
        if line.state != "ready":
            text = f"{line.video_id} is {line.reason}, but ffmpeg decodes {len(told)} frames"
            (found.missed if bare_frames(path) else found.by_release).append(text)
        elif words := _unlike(kept, int(line.Index), int(line.frames_decoded), told, spec):
            bare = bare_frames(path)
            upright = bare and bare[0].shape == told.pictures.shape[1:]
            apart = not upright or _unlike(
                kept,
                int(line.Index),
                int(line.frames_decoded),
                replace(told, pictures=_ragged(bare)),
                spec,
                BARE_LEVELS,
            )
            (found.unlike if apart else found.by_release).append(f"{line.video_id}: {words}")
        else:
            found.alike += 1
    return found


def bare_frames(path: Path) -> list[NDArray[np.uint8]]:
    """Every picture that a bare loop over PyAV gives, as RGB; none of our code is asked."""
    pictures: list[NDArray[np.uint8]] = []
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            for packet in container.demux(stream):
                try:
                    frames = stream.decode(packet)
                except av.error.FFmpegError:
                    continue
                pictures += [
                    frame.to_ndarray(format="rgb24", interpolation="BICUBIC") for frame in frames
                ]
    except (av.error.FFmpegError, IndexError):
        pass  # damaged from here on; what came before counts
    return pictures


def _ragged(pictures: list[NDArray[np.uint8]]) -> NDArray[Any]:
    """One entry a picture: a broken header changes their size in mid-clip, which `ffmpeg` scales away."""
    found = np.empty(len(pictures), object)
    found[:] = pictures
    return found


def _unlike(
    kept: Any, row: int, decoded: int, told: Reference, spec: Spec, most: float = LEVELS
) -> str:
    """What sets a ready row apart from the reference, in words; empty where nothing does."""
    if decoded != len(told):
        return f"{decoded} frames, {len(told)} by ffmpeg"
    sequence = kept.load([row])
    index: NDArray[np.int32] = kept.steps_of([row])[0][0]
    for step in np.flatnonzero(sequence.mask[0]).tolist():
        right = fitted(told, int(index[step]), spec.fit, spec.size).astype(np.int16)
        levels = float(np.abs(right - sequence.features[0, step]).mean())
        if levels > most:
            return f"frame {index[step]} is {levels:.1f} levels from ffmpeg's"
    return ""
