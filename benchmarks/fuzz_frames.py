"""The frames that a run kept of broken clips, beside those that `ffmpeg` itself decodes of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import store
from pipeline.spec import Spec
from tests.frames.comparing import LEVELS, fitted
from tests.frames.corpus import HERE
from tests.frames.reference import NoReference, Reference, reference

LIMIT_S = 60.0
"""Seconds for `ffmpeg` to decode one broken clip."""


@dataclass(slots=True)
class Beside:
    """What the comparison found. Each list is of clips' ids with words.

    alike: how many ready clips are as `ffmpeg` decodes them. unlike: those that are not. alone:
    ready here, no frame by `ffmpeg`. missed: failed here, frames by `ffmpeg`.
    """

    alike: int = 0
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
        try:
            told = reference(clips / line.video_id, limit_s=LIMIT_S)
        except NoReference as error:
            if line.state == "ready":
                found.alone.append(f"{line.video_id} is ready, but {error}")
            continue
        if line.state != "ready":
            text = f"{line.video_id} is {line.reason}, but ffmpeg decodes {len(told)} frames"
            found.missed.append(text)
        elif words := _unlike(kept, int(line.Index), int(line.frames_decoded), told, spec):
            found.unlike.append(f"{line.video_id}: {words}")
        else:
            found.alike += 1
    return found


def _unlike(kept: Any, row: int, decoded: int, told: Reference, spec: Spec) -> str:
    """What sets a ready row apart from the reference, in words; empty where nothing does."""
    if decoded != len(told):
        return f"{decoded} frames, {len(told)} by ffmpeg"
    sequence = kept.load([row])
    index: NDArray[np.int32] = kept.steps_of([row])[0][0]
    for step in np.flatnonzero(sequence.mask[0]).tolist():
        right = fitted(told, int(index[step]), spec.fit, spec.size).astype(np.int16)
        levels = float(np.abs(right - sequence.features[0, step]).mean())
        if levels > LEVELS:
            return f"frame {index[step]} is {levels:.1f} levels from ffmpeg's"
    return ""
